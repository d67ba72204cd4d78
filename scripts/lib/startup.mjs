// Start-up of the built Worker, and its budget: fails, with the number, if it is exceeded. (What does not depend on the clock
// has budgets in tests/bench/budgets.json.)
//
// Start-up is what a request waits for when it meets no isolate: workerd reads and compiles the modules, runs their top
// level, and the first request compiles the functions that it calls. It is measured from outside, from starting workerd to
// the answer to the first GET /version, less the same for a Worker of one line. Where the system tells (Linux), it is what
// all threads of workerd computed, which is hardly less than the time on a machine that has nothing else to do, and not
// much more on a busy one; elsewhere it is the time. The median of several such pairs is taken, and when it is above
// the budget, up to two more rounds: other work only makes it longer, so that the smallest median is nearest to the truth.

import { readFileSync, readdirSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";

const MOST_MS = 100;

const PAIRS = 5;
const ROUNDS = 3;

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const build = path.resolve(process.argv[2] ?? path.join(ROOT, "build"));
const script = readFileSync(path.join(build, "index.js"), "utf8");
const wasm = readFileSync(path.join(build, "index_bg.wasm"));

process.env.WRANGLER_LOG ??= "warn";
const { unstable_readConfig } = await import("wrangler");
// The miniflare which this wrangler pins, as for scripts/serve.
const require = createRequire(createRequire(import.meta.url).resolve("wrangler"));
const { Miniflare, Log, LogLevel, convertV4MiniflareOptions } = require("miniflare");
const { compatibility_date } = unstable_readConfig({ config: path.join(ROOT, "wrangler.toml") }, { hideWarnings: true });

const OURS = [
  { type: "ESModule", path: "index.js", contents: script },
  { type: "CompiledWasm", path: "index_bg.wasm", contents: wasm },
];
const ONE_LINE = [
  { type: "ESModule", path: "index.js", contents: "export default { fetch: () => new Response('hello') }" },
];

/** Milliseconds that all threads of the workerd which runs now have computed; undefined where nobody tells. */
function computed() {
  try {
    const children = readFileSync(`/proc/self/task/${process.pid}/children`, "utf8").split(" ").filter(Boolean);
    const workerd = children.find((pid) => readFileSync(`/proc/${pid}/comm`, "utf8").startsWith("workerd"));
    const threads = readdirSync(`/proc/${workerd}/task`);
    const ns = threads.map((thread) => Number(readFileSync(`/proc/${workerd}/task/${thread}/schedstat`, "utf8").split(" ")[0]));
    return ns.reduce((a, b) => a + b, 0) / 1e6;
  } catch {
    return undefined;
  }
}

/** Milliseconds from starting workerd with these modules to the answer to its first request: computed, or passed. */
async function firstAnswer(modules) {
  const begun = performance.now();
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      name: "startup",
      compatibilityDate: compatibility_date,
      modules,
      modulesRoot: "/",
      host: "127.0.0.1",
      port: 0,
      cf: false, // the default fetches a sample of request.cf from the network
      log: new Log(LogLevel.ERROR),
      handleStructuredLogs: () => {},
    }),
  );
  try {
    const response = await fetch(new URL("/version", await miniflare.ready));
    await response.text();
    if (!response.ok) throw new Error(`GET /version answered ${response.status}`);
    return computed() ?? performance.now() - begun;
  } finally {
    await miniflare.dispose();
  }
}

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];

async function startup() {
  const times = [];
  for (let i = 0; i < PAIRS; i++) {
    const [ours, oneLine] = [await firstAnswer(OURS), await firstAnswer(ONE_LINE)];
    times.push(ours - oneLine);
  }
  return median(times);
}

await firstAnswer(OURS); // the first of all reads files that are in no cache
let ms = Infinity;
for (let round = 0; round < ROUNDS && ms > MOST_MS; round++) ms = Math.min(ms, await startup());

console.log(`start-up: ${ms.toFixed(1)} ms, at most ${MOST_MS} (in workerd on this machine, the median of ${PAIRS})`);
if (ms > MOST_MS) console.error("budget: the Worker's start-up exceeds the budget in scripts/lib/startup.mjs.");
process.exit(ms > MOST_MS ? 1 : 0);
