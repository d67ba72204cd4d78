// Runs the built Worker in workerd on this machine, for the demonstration and for tests.
//
// It drives miniflare, the library under `wrangler dev`, and not `wrangler dev` itself, which puts
// a second workerd as a proxy in front of the Worker, wrong for measuring, and watches files and
// rebuilds during a test. Bindings, classes and migrations come from wrangler.toml, read by
// wrangler, so what runs here is what would be deployed, but for rate limits. If workerd dies, miniflare starts it again
// on the same port and state.

import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, parseEnv } from "node:util";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

const USAGE = `usage: scripts/serve [options]
  --port N          port on 127.0.0.1; 0, the default, picks a free one
  --persist DIR     where objects and KV are kept, default .wrangler/serve
  --build DIR       a directory written by scripts/build, default build
  --env-file FILE   secrets as NAME="value" lines, default .dev.vars
  --limit NAME=N    bind the rate limit NAME, of N requests in ten seconds; may be given several times.
                    Those of wrangler.toml are left out: a test asks more often than any leader
  --verbose         print what the Worker logs on stderr (errors are always printed)
  --detached        keep running when the process that started this one has ended

Prints "READY http://127.0.0.1:PORT" once GET /healthz answers, and runs until SIGTERM or SIGINT.`;

function fail(message) {
  console.error(`serve: ${message}`);
  process.exit(1);
}

function readOptions() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        port: { type: "string", default: "0" },
        persist: { type: "string", default: path.join(ROOT, ".wrangler/serve") },
        build: { type: "string", default: path.join(ROOT, "build") },
        "env-file": { type: "string", default: path.join(ROOT, ".dev.vars") },
        limit: { type: "string", multiple: true, default: [] },
        verbose: { type: "boolean", default: false },
        detached: { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    }));
  } catch (error) {
    fail(`${error.message}; --help lists the options`);
  }
  if (values.help) {
    console.log(USAGE);
    process.exit(0);
  }
  const port = Number(values.port);
  if (!Number.isInteger(port) || port < 0 || port > 65535) fail(`"${values.port}" is not a port`);
  const build = path.resolve(values.build);
  if (!existsSync(path.join(build, "index.js"))) {
    fail(`${build} holds no built Worker; run scripts/build${build.endsWith("-test") ? " --test" : ""} first`);
  }
  const envFile = path.resolve(values["env-file"]);
  if (!existsSync(envFile)) fail(`${envFile} does not exist; scripts/setup writes .dev.vars`);
  const ratelimits = {};
  for (const limit of values.limit) {
    const [, name, count] = /^([A-Z_]+)=([0-9]+)$/.exec(limit) ?? fail(`"${limit}" is not NAME=N`);
    ratelimits[name] = { namespace_id: name, simple: { limit: Number(count), period: 10 } };
  }
  return { ...values, ratelimits, port, build, envFile, persist: path.resolve(values.persist) };
}

/** Refuses a port in use at once, where workerd would only log that it could not bind. */
function choosePort(port) {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once("error", (error) => fail(`cannot listen on 127.0.0.1:${port}: ${error.code}`));
    probe.listen(port, "127.0.0.1", () => {
      const chosen = probe.address().port;
      probe.close(() => resolve(chosen));
    });
  });
}

const options = readOptions();
const parent = process.ppid;

process.env.WRANGLER_LOG ??= "warn"; // it would announce a .dev.vars which is not used here
const { unstable_readConfig, unstable_getMiniflareWorkerOptions } = await import("wrangler");
// The miniflare which this wrangler pins; a second pin in package.json could only disagree with it.
const require = createRequire(createRequire(import.meta.url).resolve("wrangler"));
const { Miniflare, Log, LogLevel, convertV4MiniflareOptions } = require("miniflare");

// `bin` of the workerd package picks the binary of this platform; run directly it needs no Node.
process.env.WORKERD_BIN = createRequire(require.resolve("miniflare"))("workerd").default;
process.env.MINIFLARE_WORKERD_PATH = path.join(ROOT, "scripts/lib/workerd-guarded");

const config = unstable_readConfig({ config: path.join(ROOT, "wrangler.toml") }, { hideWarnings: true });
const { workerOptions } = unstable_getMiniflareWorkerOptions(config);
const port = await choosePort(options.port);
mkdirSync(options.persist, { recursive: true });

const miniflare = new Miniflare(
  convertV4MiniflareOptions({
    ...workerOptions,
    // Only the named file: a secret of .dev.vars must not complete a test's own set unseen.
    bindings: { ...config.vars, ...parseEnv(readFileSync(options.envFile, "utf8")) },
    ratelimits: options.ratelimits,
    name: config.name,
    rootPath: options.build,
    modulesRoot: options.build,
    modules: [
      { type: "ESModule", path: path.join(options.build, "index.js") },
      { type: "CompiledWasm", path: path.join(options.build, "index_bg.wasm") },
    ],
    host: "127.0.0.1",
    port,
    cf: false, // the default fetches a sample of request.cf from the network at start
    resourcePersistencePath: options.persist,
    log: new Log(options.verbose ? LogLevel.INFO : LogLevel.ERROR),
  }),
);

let stopping = false;
async function stop(code) {
  if (stopping) return;
  stopping = true;
  await miniflare.dispose();
  process.exit(code);
}
for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"]) {
  process.removeAllListeners(signal); // wrangler's own would end the process before dispose() is done
  process.on(signal, () => stop(0));
}
if (!options.detached) {
  // A test that is killed cannot send a signal; its servers notice within half a second.
  setInterval(() => process.ppid !== parent && stop(0), 500).unref();
}

try {
  await miniflare.ready;
  const health = await fetch(`http://127.0.0.1:${port}/healthz`, { signal: AbortSignal.timeout(30_000) });
  const body = await health.text();
  if (!health.ok) throw new Error(`GET /healthz answered ${health.status}: ${body.slice(0, 500)}`);
  console.log(`READY http://127.0.0.1:${port}`);
} catch (error) {
  console.error(`serve: ${error.message}`);
  await stop(1);
}
