// How many instructions the helper's work on a report takes, natively, counted by valgrind's callgrind: the same number each
// time, whatever else the machine does. `scripts/bench instructions` builds the program and runs this with it.
//
//   node scripts/lib/bench-instructions.mjs PROGRAM COMPILER [--output text|json] [--case NAME]
//
// VALGRIND names the command. The program does each step of a case once where callgrind collects (tests/micro,
// src/bin/instructions.rs), and callgrind writes a sum where each ends.

import { execFile, execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

import { readOptions, wrongUsage } from "./bench-options.mjs";

const { values: options, positionals } = readOptions({
  allowPositionals: true,
  options: { output: { type: "string", default: "text" }, case: { type: "string", default: "" } },
});
const { VALGRIND, VALGRIND_LIB } = process.env;
if (positionals.length !== 2 || !["text", "json"].includes(options.output) || !VALGRIND) {
  wrongUsage("usage: scripts/bench instructions [--output text|json] [--case NAME]");
}
const [program, compiler] = positionals;

const COUNTED = "instructions::counted_by_callgrind";
// Nothing else of the caller's environment. The C library chooses how memory is copied by what the processor can do; these
// it is not to use, so that each machine copies alike.
const ENVIRONMENT = {
  ...(VALGRIND_LIB ? { VALGRIND_LIB } : {}),
  GLIBC_TUNABLES: `glibc.cpu.hwcaps=${["AVX", "AVX2", "AVX512F", "AVX512VL", "BMI2", "ERMS", "FSRM", "SSSE3", "AVX_Fast_Unaligned_Load"].map((name) => `-${name}`).join(",")}`,
};

const { reports, cases, steps } = JSON.parse(execFileSync(program, { encoding: "utf8" }));
const selected = cases.filter((name) => name.includes(options.case));
if (selected.length === 0) wrongUsage(`there is no such case; there are ${cases.join(", ")}.`);

const folder = mkdtempSync(path.join(tmpdir(), "daphne-callgrind-"));
const counted = new Map();
try {
  const waiting = [...selected.entries()];
  const worker = async () => {
    for (let next; (next = waiting.shift()); ) counted.set(next[1], await count(next[1], path.join(folder, `${next[0]}`)));
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
} finally {
  rmSync(folder, { recursive: true, force: true });
}
const perReport = Object.fromEntries(selected.map((name) => [name, counted.get(name)]));

/** Instructions per report of each step of a case. */
async function count(name, file) {
  const callgrind = ["-q", "--tool=callgrind", `--toggle-collect=${COUNTED}`, `--dump-after=${COUNTED}`, "--combine-dumps=yes"];
  await promisify(execFile)(VALGRIND, [...callgrind, `--callgrind-out-file=${file}`, program, name], { env: ENVIRONMENT });
  const sums = [...readFileSync(file, "utf8").matchAll(/^desc: Trigger: (.*)\n[^]*?^summary: (\d+)$/gm)]
    .filter(([, trigger]) => trigger.startsWith("--dump-after"))
    .map(([, , sum]) => Number(sum));
  if (sums.length !== steps.length || sums.includes(0)) {
    throw new Error(`${name}: callgrind has ${sums.length} sums of ${steps.length} steps; does it know ${COUNTED}?`);
  }
  return Object.fromEntries(steps.map((step, n) => [step, Math.round(sums[n] / reports)]));
}

if (options.output === "json") {
  const valgrind = execFileSync(VALGRIND, ["--version"], { encoding: "utf8" }).trim();
  console.log(JSON.stringify({ compiler, machine: process.arch, valgrind, instructions_per_report: perReport }, null, 2));
} else {
  console.log(`Instructions per report, natively (${process.arch}, ${compiler}), jobs of ${reports}`);
  console.log(`${"".padEnd(22)}${steps.map((step) => step.padStart(11)).join("")}`);
  for (const [name, numbers] of Object.entries(perReport)) {
    console.log(`${name.padEnd(22)}${steps.map((step) => `${numbers[step]}`.padStart(11)).join("")}`);
  }
}
