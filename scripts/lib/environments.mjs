// Checks that the environments of wrangler.toml bind the same things, and prints their names, the top level's as "-".
//
// Wrangler inherits no bindings. One that is forgotten in an environment, or there under another name, would be
// noticed in production, where no test runs.

import { unstable_readConfig } from "wrangler";

process.env.WRANGLER_LOG ??= "warn";

const file = process.argv[2] ?? "wrangler.toml";
const read = (env) => unstable_readConfig({ config: file, env }, { hideWarnings: true });
const { definedEnvironments = [], topLevelName } = read(undefined);
const names = ["", ...definedEnvironments];

/** What must be equal: names and kinds, and what differs between accounts or environments left out. */
function shape(config) {
  return {
    kv: config.kv_namespaces.map(({ binding }) => binding),
    objects: config.durable_objects.bindings.map(({ name, class_name }) => [name, class_name]),
    limits: config.ratelimits.map(({ name, simple }) => [name, simple]),
    datasets: config.analytics_engine_datasets.map(({ binding }) => binding),
    migrations: config.migrations,
    cpu: config.limits,
    date: config.compatibility_date,
    vars: Object.keys(config.vars),
  };
}

const problems = [];
const configs = new Map(names.map((name) => [name, read(name || undefined)]));
const expected = shape(configs.get(""));
for (const [name, config] of configs) {
  for (const [what, value] of Object.entries(shape(config))) {
    const [here, there] = [JSON.stringify(value), JSON.stringify(expected[what])];
    if (here !== there) problems.push(`[env.${name}] has other ${what} than the top level: ${here}, not ${there}`);
  }
  const secrets = config.secrets?.required ?? [];
  if (name !== "" && !(secrets.includes("ROOT_KEYS") && secrets.includes("ADMIN_TOKENS"))) {
    problems.push(`[env.${name}] does not require ROOT_KEYS and ADMIN_TOKENS`);
  }
}
// Counters and KV are the account's: two environments with one of them would count, or cache, for each other.
const counters = [...configs.values()].flatMap((config) => config.ratelimits.map((limit) => limit.namespace_id));
if (new Set(counters).size !== counters.length) problems.push("two rate limits have the same namespace_id");
const workers = [...configs.values()].map((config) => config.name);
if (new Set(workers).size !== workers.length) problems.push(`two environments are one Worker: ${workers.join(", ")}`);
if (!names.includes("staging") || !names.includes("production")) problems.push("staging or production is missing");
if (topLevelName !== "daphne-edge") problems.push(`the Worker is called ${topLevelName}`);

if (problems.length > 0) {
  for (const problem of problems) console.error(`${file}: ${problem}`);
  process.exit(1);
}
// "-" for the top level: a shell would lose an empty line.
console.log(names.map((name) => name || "-").join("\n"));
