// Shows the whole system at work: the Worker in workerd, tasks of every VDAF in both batch modes and
// both versions of DAP, reports of two independent clients, aggregation, collection, and the truth computed here from
// the raw measurements and compared with what the collector got.
//
// Runs on Node 18, since it is what installs everything else.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

const USAGE = `usage: scripts/demo [--quick] [--keep]

Sets up and builds what is missing, starts the Worker on a free port of 127.0.0.1 with fresh secrets
and a directory of its own, creates a task for each of Prio3Count, Prio3Sum, Prio3Histogram and
Prio3SumVec in both batch modes of DAP-09 and, in the same deployment, one of each in DAP-18, makes
reports with @divviup/dap (which speaks DAP-09) and with dapctl, aggregates them in jobs of up to 500,
collects, and compares each aggregate with the sum of the raw measurements. Then it finds the
frequent strings among others with Poplar1.
  --quick  fewer reports, for tests
  --keep   keep the directory with tasks, secrets, reports and the Worker's state, and print its name

The last line of a success is "DEMO OK: ..."; a failure is one sentence, and an exit code other than 0.
Under a minute when all is built; the first run of a machine takes up to half an hour, for compilers.`;

const TIME_PRECISION = 3600;
// Reports fall into this many batch buckets, so that a time-interval task has several batches.
const BUCKETS = 2;
const JOB_SIZE = 500;
const MODES = ["time-interval", "leader-selected"];
// In DAP-18 all parties of a task have these bytes; here nobody looks the URL up.
const DAP18 = { version: "dap-18", "leader-url": "https://leader.example/v18/" };

// How many reports of each client a task gets: fewer where one is dearer. One task fills jobs.
const VDAFS = [
  { name: "Prio3Count", options: { vdaf: "count" }, npm: 300, own: 700 },
  { name: "Prio3Sum 8 bits", options: { vdaf: "sum", bits: 8 }, npm: 150, own: 250 },
  {
    name: "Prio3Histogram 100/10",
    options: { vdaf: "histogram", length: 100, "chunk-length": 10 },
    npm: 100,
    own: 200,
  },
  {
    name: "Prio3SumVec 1000x1/32",
    options: { vdaf: "sumvec", length: 1000, bits: 1, "chunk-length": 32 },
    npm: 50,
    own: 100,
  },
];

// Strings of which some are frequent, and how many make one so, of each hundred.
const STRINGS = { bits: 16, count: 1000, percent: 5 };

// --- Steps, processes and their end ---------------------------------------------------------

const started = performance.now();
const running = new Set();
let server;
let folder;
let keep = false;
let stopping;

class Failure extends Error {}

function step(text) {
  if (stopping) throw new Failure("stopped"); // nothing new is begun
  console.log(`[${((performance.now() - started) / 1000).toFixed(1).padStart(6)} s] ${text}`);
}

/** Starts a program in a process group of its own, which `stop` ends as a whole. */
function start(command, args, options = {}) {
  if (stopping) throw new Failure("stopped");
  const child = spawn(command, args.map(String), { cwd: ROOT, detached: true, ...options });
  child.ended = new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => resolve(signal ?? code));
  });
  running.add(child);
  child.ended.then(() => child === server || running.delete(child));
  return child;
}

/** Runs a program to its end and returns what it printed. If it fails, its last word says why. */
async function run(what, command, args, stdio = ["ignore", "pipe", "pipe"]) {
  const child = start(command, args, { stdio });
  let output = "";
  let errors = "";
  child.stdout?.setEncoding("utf8").on("data", (text) => (output += text));
  child.stderr?.setEncoding("utf8").on("data", (text) => (errors += text));
  const end = await child.ended;
  if (end !== 0) {
    const why = errors.trimEnd().split("\n").pop() || `it ended with ${end}`;
    throw new Failure(`${what} failed: ${why}`);
  }
  return output;
}

function groupLives(child) {
  try {
    process.kill(-child.pid, 0);
    return true;
  } catch {
    return false;
  }
}

function signalGroup(child, signal) {
  try {
    process.kill(-child.pid, signal);
  } catch {
    // It has ended.
  }
}

/** Ends all that was started, waits until it is gone, and removes the directory. */
function stop() {
  stopping ??= (async () => {
    for (const child of running) {
      if (child === server) child.kill("SIGTERM"); // it ends workerd in good order
      else signalGroup(child, "SIGTERM");
    }
    const deadline = performance.now() + 10_000;
    for (const child of running) {
      // The group, as a server's watcher outlives it by up to a second.
      while (groupLives(child) && performance.now() < deadline) {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      if (groupLives(child)) signalGroup(child, "SIGKILL");
    }
    if (folder && !keep) rmSync(folder, { recursive: true, force: true });
  })();
  return stopping;
}

// --- Set-up ---------------------------------------------------------------------------------

async function buildDapctl() {
  const args = ["build", "--locked", "-p", "dapctl", "--message-format", "json-render-diagnostics"];
  const messages = await run("building dapctl", "cargo", args, ["ignore", "pipe", "inherit"]);
  for (const line of messages.split("\n")) {
    if (!line.startsWith("{")) continue;
    const message = JSON.parse(line);
    if (message.executable && message.target.name === "dapctl") return message.executable;
  }
  throw new Failure("cargo did not say where it put dapctl");
}

async function startServer() {
  const token = randomBytes(16).toString("base64url");
  const secrets = `ROOT_KEYS="1=${randomBytes(32).toString("base64url")}"\nADMIN_TOKENS="${token}"\n`;
  writeFileSync(path.join(folder, "secrets"), secrets, { mode: 0o600 });
  const tokenFile = path.join(folder, "admin-token");
  writeFileSync(tokenFile, token, { mode: 0o600 });
  server = start(
    path.join(ROOT, "scripts/serve"),
    ["--persist", path.join(folder, "state"), "--env-file", path.join(folder, "secrets")],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const url = await new Promise((resolve, reject) => {
    let output = "";
    server.stdout.setEncoding("utf8").on("data", (text) => {
      output += text;
      const ready = /^READY (\S+)$/m.exec(output);
      if (ready) resolve(ready[1]);
    });
    server.ended.then((end) => reject(new Failure(`the Worker did not start: scripts/serve ended with ${end}`)));
  });
  return { url, tokenFile };
}

// --- Tasks and reports ----------------------------------------------------------------------

const flags = (options) => Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);

async function makeReports(task, dapctl, times, index) {
  await dapctl([
    ...["report", "make", "--task", task.file, "--random", "--seed", index],
    ...flags({ ...times, count: task.own, out: task.reports[0] }),
  ]);
  if (task.npm === 0) return;
  // The npm package is given the HPKE lists, so that nothing of this project is between it and the draft.
  const hpke = ["report", "leader-config", "--task", task.file];
  const [leader, helper] = await Promise.all([dapctl(hpke), dapctl([...hpke, "--helper"])]);
  await run(
    `making reports for ${task.label} with @divviup/dap`,
    path.join(ROOT, "node_modules/node/bin/node"),
    [
      path.join(ROOT, "scripts/lib/divviup-reports.mjs"),
      // With "=", as an id may begin with a hyphen.
      `--task-id=${task.id}`,
      `--leader-hpke-config-list=${leader.hpke_config_list}`,
      `--helper-hpke-config-list=${helper.hpke_config_list}`,
      ...flags(task.options),
      ...flags({ ...times, "time-precision": TIME_PRECISION, count: task.npm, seed: index }),
      ...flags({ out: task.reports[1] }),
    ],
  );
}

// --- The truth ------------------------------------------------------------------------------

/** Adds a measurement to a sum as the VDAF defines it. Numbers stay far below 2^53. */
function add(options, sum, measurement) {
  switch (options.vdaf) {
    case "count":
    case "sum":
      return (sum ?? 0) + measurement;
    case "histogram": {
      const buckets = sum ?? new Array(options.length).fill(0);
      buckets[measurement] += 1;
      return buckets;
    }
    case "sumvec":
      return (sum ?? new Array(options.length).fill(0)).map((n, i) => n + measurement[i]);
  }
}

/**
 * What must come out, from the report files alone: reports and their sum by batch. Batches of a
 * time-interval task are found by the time in the report, its bytes 16 to 24: seconds in DAP-09,
 * batches since the Unix epoch in DAP-18.
 */
function truth(task) {
  const batches = new Map();
  for (const file of task.reports) {
    for (const line of readFileSync(file, "utf8").split("\n").filter(Boolean)) {
      const { report, measurement } = JSON.parse(line);
      const unit = task.version === DAP18.version ? TIME_PRECISION : 1;
      const time = Number(Buffer.from(report, "base64url").readBigUInt64BE(16)) * unit;
      const batch = task.mode === "time-interval" ? time - (time % TIME_PRECISION) : "all";
      const { count, sum } = batches.get(batch) ?? { count: 0 };
      batches.set(batch, { count: count + 1, sum: add(task.options, sum, measurement) });
    }
  }
  return batches;
}

/** Compares what the collector got with the truth; returns the first difference as a sentence. */
function difference(task, summary) {
  const expected = truth(task);
  const all = task.npm + task.own;
  if (!summary.ok) return summary.problems?.[0] ?? "dapctl reports a failure";
  if (summary.matches !== true) return "dapctl could not confirm the aggregate";
  if (summary.reports_accepted !== all) return `${summary.reports_accepted} of ${all} reports were accepted`;
  if (summary.batches.length !== expected.size) {
    return `${summary.batches.length} batches were collected, not ${expected.size}`;
  }
  for (const { batch, report_count: count, aggregate } of summary.batches) {
    const name = task.mode === "time-interval" ? batch.start : "all";
    const right = expected.get(name);
    if (!right) return `batch ${JSON.stringify(batch)} has no reports`;
    if (count !== right.count) return `a batch holds ${count} reports, not ${right.count}`;
    if (JSON.stringify(aggregate) !== JSON.stringify(right.sum)) {
      return `an aggregate is ${compact(aggregate)}, and the truth is ${compact(right.sum)}`;
    }
  }
  return null;
}

function compact(aggregate) {
  if (!Array.isArray(aggregate)) return String(aggregate);
  const sum = aggregate.reduce((a, b) => a + b, 0);
  const shown = aggregate.map((n, i) => `${i}:${n}`).filter((_, i) => aggregate[i] !== 0);
  return `${sum} in ${aggregate.length} (${shown.slice(0, 4).join(" ")}${shown.length > 4 ? " .." : ""})`;
}

function table(rows) {
  const widths = rows[0].map((_, i) => Math.max(...rows.map((row) => String(row[i]).length)));
  for (const row of rows) {
    const cells = row.map((cell, i) =>
      typeof cell === "number" ? String(cell).padStart(widths[i]) : String(cell).padEnd(widths[i]),
    );
    console.log(cells.join("  ").trimEnd());
  }
}

/** Finds the frequent strings of a Poplar1 task, and compares them with those in the report file. */
async function heavyHitters(dapctl, times, quick) {
  const file = path.join(folder, "strings.json");
  const reports = path.join(folder, "strings.jsonl");
  const count = quick ? STRINGS.count / 4 : STRINGS.count;
  const threshold = Math.ceil((count * STRINGS.percent) / 100);
  step(`Looking for strings that at least ${threshold} of ${count} clients have, with Poplar1`);
  await dapctl([
    ...["task", "add", "--vdaf", "poplar1", "--bits", STRINGS.bits, "--max-batch-query-count", STRINGS.bits],
    ...["--time-precision", TIME_PRECISION, "--save", file],
  ]);
  await dapctl(["report", "make", "--task", file, "--random", ...flags({ ...times, count, out: reports })]);
  const args = ["drive", "--task", file, "--reports", reports, "--job-size", JOB_SIZE];
  const summary = await dapctl([...args, "--threshold", threshold, "--stride", 2]);
  const strings = new Map();
  for (const line of readFileSync(reports, "utf8").split("\n").filter(Boolean)) {
    const { measurement } = JSON.parse(line);
    strings.set(measurement, (strings.get(measurement) ?? 0) + 1);
  }
  const right = [...strings]
    .filter(([, n]) => n >= threshold)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  const found = summary.heavy_hitters?.map(({ string, reports }) => [string, reports]);
  for (const [string, n] of found ?? []) step(`  ${string}: ${n} reports`);
  if (!summary.ok || JSON.stringify(found) !== JSON.stringify(right)) {
    throw new Failure(summary.problems?.[0] ?? "the strings found are not the frequent ones");
  }
  return count;
}

// --- The whole ------------------------------------------------------------------------------

async function demo({ quick }) {
  const loud = ["ignore", "inherit", "inherit"];
  step("Setting up");
  await run("scripts/setup", path.join(ROOT, "scripts/setup"), [], loud);
  step("Building the Worker");
  await run("scripts/build", path.join(ROOT, "scripts/build"), [], loud);
  step("Building dapctl");
  const program = await buildDapctl();

  step("Starting the Worker");
  folder = mkdtempSync(path.join(tmpdir(), "daphne-demo-"));
  const { url, tokenFile } = await startServer();
  const dapctl = async (args) => {
    const all = ["--output", "json", "--url", url, "--admin-token-file", tokenFile, ...args];
    return JSON.parse(await run(`"dapctl ${args[0]}"`, program, all));
  };
  const plans = VDAFS.flatMap((vdaf) => MODES.map((mode) => ({ ...vdaf, mode, version: "dap-09" })));
  // The client that others wrote does not speak DAP-18, so ours makes all reports of these.
  for (const [index, vdaf] of VDAFS.entries()) {
    plans.push({ ...vdaf, npm: 0, mode: MODES[index % MODES.length], version: DAP18.version });
  }
  step(`It serves ${url}; making an HPKE key and ${plans.length} tasks`);
  await dapctl(["hpke", "add"]);
  const tasks = [];
  for (const plan of plans) {
    const file = path.join(folder, `task-${tasks.length + 1}.json`);
    const added = await dapctl([
      ...["task", "add", "--batch-mode", plan.mode, "--time-precision", TIME_PRECISION, "--save", file],
      ...flags(plan.options),
      ...(plan.version === DAP18.version ? flags(DAP18) : []),
    ]);
    const clients = plan.npm > 0 ? ["own", "npm"] : ["own"];
    tasks.push({
      ...plan,
      file,
      id: added.task.task_id,
      label: `${plan.version}, ${plan.name}, ${plan.mode}`,
      reports: clients.map((client) => file.replace(/\.json$/, `-${client}.jsonl`)),
      npm: quick ? Math.ceil(plan.npm / 5) : plan.npm,
      own: quick ? Math.ceil(plan.own / 5) : plan.own,
    });
  }

  const npm = tasks.reduce((n, task) => n + task.npm, 0);
  const own = tasks.reduce((n, task) => n + task.own, 0);
  step(`Making ${npm} reports with @divviup/dap and ${own} with dapctl`);
  const time = (Math.floor(Date.now() / 1000 / TIME_PRECISION) - BUCKETS) * TIME_PRECISION;
  const times = { time, "time-span": BUCKETS * TIME_PRECISION };
  for (const [index, task] of tasks.entries()) {
    await makeReports(task, dapctl, times, index);
    step(`  ${task.label}: ${task.npm} + ${task.own}`);
  }

  step(`Aggregating in jobs of up to ${JOB_SIZE}, and collecting`);
  const rows = [["task", "version", "batch mode", "VDAF", "reports", "accepted", "jobs", "batches", "match", "seconds"]];
  for (const task of tasks) {
    const begun = performance.now();
    const args = ["drive", "--task", task.file, "--job-size", JOB_SIZE];
    for (const file of task.reports) args.push("--reports", file);
    if (task.mode === "time-interval") args.push("--per-bucket");
    const summary = await dapctl(args).catch((error) => {
      throw new Failure(`${task.label}: ${error.message}`);
    });
    const seconds = ((performance.now() - begun) / 1000).toFixed(1);
    const wrong = difference(task, summary);
    if (wrong) throw new Failure(`${task.label}: ${wrong}`);
    step(`  ${task.label}: ${summary.batches.map((b) => compact(b.aggregate)).join(" and ")}`);
    rows.push([
      ...[task.id.slice(0, 8), task.version, task.mode, task.name, summary.reports_read, summary.reports_accepted],
      ...[summary.jobs, summary.batches.length, "yes", seconds],
    ]);
  }
  const strings = await heavyHitters(dapctl, times, quick);
  step("Stopping the Worker");
  await stop();
  if (keep) console.log(`Kept ${folder}`);
  console.log();
  table(rows);
  console.log();
  const later = tasks.filter((task) => task.version === DAP18.version).length;
  const all = `${tasks.length + 1} tasks (${tasks.length + 1 - later} of dap-09, ${later} of dap-18)`;
  console.log(`DEMO OK: ${all}, ${npm + own + strings} reports, all aggregates match`);
}

async function end(code, message) {
  await stop().catch((error) => console.error(`demo: not everything could be stopped: ${error.message}`));
  if (message) console.error(`demo: ${message}`);
  if (keep && folder && existsSync(folder)) console.error(`demo: kept ${folder}`);
  process.exit(code);
}

process.stdout.on("error", () => stopping || end(1, "standard output cannot be written"));
for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]]) {
  process.on(signal, () => stopping || end(code, `stopped by ${signal}`));
}

try {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      keep: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
  } else {
    keep = values.keep;
    await demo(values);
  }
} catch (error) {
  // While a signal is ending everything, each program that it ended fails as well.
  if (!stopping) {
    const parsing = error.code?.startsWith("ERR_PARSE_ARGS");
    await end(parsing ? 2 : 1, parsing ? `${error.message}; --help lists the options` : error.message);
  }
}
