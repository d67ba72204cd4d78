// `scripts/bench budgets`: counts what has a budget, and compares, or with --update writes the budgets anew.

import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { constants, gzipSync } from "node:zlib";

import { readOptions, wrongUsage } from "./bench-options.mjs";
import { compare, difference, updated } from "./budgets.mjs";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const FILE = path.join(ROOT, "tests/bench/budgets.json");
/** An exit code of scripts/bench: this cannot be measured on this machine. */
const CANNOT = 3;

/** Each returns a group of numbers, or why there is none. */
const MEASURES = { instructions_per_report: instructions, worker_gzip_bytes: size, operations_per_job: operations };

const { values: options } = readOptions({
  options: { update: { type: "boolean", default: false }, only: { type: "string", multiple: true } },
});
const unknown = options.only?.find((name) => !(name in MEASURES));
if (unknown !== undefined) wrongUsage(`there is no group "${unknown}"; there are ${Object.keys(MEASURES).join(", ")}.`);

const budgets = JSON.parse(readFileSync(FILE, "utf8"));
const measured = {};
for (const [group, measure] of Object.entries(MEASURES)) {
  if (options.only && !options.only.includes(group)) continue;
  const result = await measure();
  if (typeof result === "string") console.log(`${group}: not measured: ${result}`);
  else measured[group] = result;
}

if (options.update) {
  for (const [group, { numbers }] of Object.entries(measured)) {
    for (const [name, is] of Object.entries(numbers)) {
      const was = budgets[group]?.numbers[name];
      if (was !== is) console.log(`${group}: ${was === undefined ? `${name} is ${is}, and had no budget` : difference(name, is, was)}`);
    }
  }
  writeFileSync(FILE, `${JSON.stringify(updated(budgets, measured), null, 2)}\n`);
  console.log(`Wrote ${path.relative(process.cwd(), FILE)}.`);
} else {
  const { failures, lower, held } = compare(budgets, measured);
  for (const line of [...held, ...lower]) console.log(line);
  for (const line of failures) console.error(`budget: ${line}`);
  process.exitCode = failures.length > 0 ? 1 : 0;
}

/**
 * All of the work on a report of each version and VDAF, and verification by itself: most of the whole is X25519, beside which
 * little else would show. And of one VDAF, parts that are the same for all; the Worker leaves X25519 to the platform.
 */
async function instructions() {
  const text = await outputUnless(CANNOT, "scripts/bench", "instructions", "--output", "json");
  if (text === undefined) return "there is no valgrind on this machine.";
  const { compiler, machine, instructions_per_report: cases } = JSON.parse(text);
  const numbers = {};
  for (const [name, steps] of Object.entries(cases)) {
    if (name.endsWith("/histogram-100")) {
      numbers[`${name} open`] = steps.open;
      numbers[`${name} open, X25519 computed`] = steps["open-agreed"];
      numbers[`${name} decode and encode`] = steps.decode + steps.encode;
    }
    numbers[`${name} verify`] = steps.verify;
    numbers[`${name} whole`] = steps.whole;
  }
  return { compiler, machine, numbers };
}

/** The Worker as it is deployed, as the platform counts its size. */
async function size() {
  if (process.env.DAPHNE_QUICK === "1") return "a quick build has no size to speak of.";
  await output("scripts/build");
  const wasm = readFileSync(path.join(ROOT, "build/index_bg.wasm"));
  const [, compiler] = /^globalThis\.daphneBuild=.*compiler:"([^"]*)"/m.exec(readFileSync(path.join(ROOT, "build/index.js"), "utf8"));
  return { compiler, numbers: { "build/index_bg.wasm": gzipSync(wasm, { level: constants.Z_BEST_COMPRESSION }).length } };
}

/** What the platform bills for a job of 500 reports, beyond the first of a task. */
async function operations() {
  const { counts } = JSON.parse(await output("scripts/bench", "counts", "--job-size", "500", "--output", "json"));
  const numbers = {};
  for (const { version, vdaf, job } of counts) {
    const of = (what, number) => (numbers[`${version}/${vdaf} ${what}`] = number);
    of("requests to objects", job.do_requests);
    of("rows read", job.rows_read);
    of("rows written", job.rows_written + job.alarms_set); // each alarm that is set bills a row, too
    of("KV reads", job.kv_reads);
  }
  return { numbers };
}

/** What a command of this repository prints. Its failure is ours. */
function output(command, ...args) {
  return outputUnless(0, command, ...args);
}

/** The same; undefined if it ends with this exit code. */
async function outputUnless(unable, command, ...args) {
  const child = spawn(path.join(ROOT, command), args, { cwd: ROOT, stdio: ["ignore", "pipe", "inherit"] });
  let text = "";
  child.stdout.setEncoding("utf8").on("data", (chunk) => (text += chunk));
  const code = await new Promise((resolve, reject) => child.on("error", reject).on("close", resolve));
  if (code === 0) return text;
  if (code === unable) return undefined;
  console.error(`bench: ${[command, ...args].join(" ")} failed.`);
  process.exit(1);
}
