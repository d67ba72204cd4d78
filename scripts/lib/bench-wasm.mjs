// What the helper's work on a report costs in V8: the core alone, compiled as the Worker is, without the Workers runtime.
// `scripts/bench wasm` builds the module and runs this with it.
//
//   node scripts/lib/bench-wasm.mjs MODULE [--output text|json] [--quick] [--case NAME] [--step NAME] [--profile FILE]
//
// Each case is a job of a version and a VDAF (tests/micro). All of them take turns, so that whatever else the machine does
// meets all of them, and the median of each is shown, with the least beside it in JSON. It is time that this process computed,
// not time that passed: other processes add little to it. V8 optimizes each function when it is first called, as it does
// sooner or later wherever a function is called often; waiting for that gave the same figures, but on a busy machine not always.

import { readFileSync, writeFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";

import { readOptions, wrongUsage } from "./bench-options.mjs";

const { values: options, positionals } = readOptions({
  allowPositionals: true,
  options: {
    output: { type: "string", default: "text" },
    quick: { type: "boolean", default: false },
    case: { type: "string", default: "" },
    step: { type: "string", default: "" },
    profile: { type: "string" },
  },
});
if (positionals.length !== 1 || !["text", "json"].includes(options.output)) {
  wrongUsage("usage: scripts/bench wasm [--output text|json] [--quick] [--case NAME] [--step NAME] [--profile FILE]");
}

// A round of a step lasts this long, so that the clock is exact.
const [ROUNDS, ROUND_MS] = options.quick ? [5, 10] : [21, 30];
const SHOWN = ["open", "verify", "whole"];

// Some dependencies would ask JavaScript for what no step needs.
const never = (what) => () => {
  throw new Error(`the module calls ${what}`);
};
setFlagsFromString("--no-liftoff");
const module = new WebAssembly.Module(readFileSync(positionals[0]));
const imports = {};
for (const { module: from, name } of WebAssembly.Module.imports(module)) (imports[from] ??= {})[name] = never(`${from}.${name}`);
const core = new WebAssembly.Instance(module, imports).exports;

const names = [];
for (let n = 0, length; (length = core.micro_name_len(n)) > 0; n++) {
  names.push(new TextDecoder().decode(new Uint8Array(core.memory.buffer, core.micro_name(n), length)));
}
const isCase = (name) => name.includes("/");
const ALL_STEPS = names.filter((name) => !isCase(name));
const STEPS = ALL_STEPS.filter((name) => name.includes(options.step));
const cases = names
  .filter(isCase)
  .map((name, number) => ({ name, number, steps: Object.fromEntries(STEPS.map((step) => [step, { us: [] }])) }))
  .filter(({ name }) => name.includes(options.case));
if (cases.length === 0 || STEPS.length === 0) wrongUsage(`there is no such case or step; there are ${names.join(", ")}.`);

/** Runs a step this often, and returns the milliseconds that it computed. */
function time(number, step, times) {
  const begun = process.cpuUsage();
  core.micro_run(number, ALL_STEPS.indexOf(step), times);
  const { user, system } = process.cpuUsage(begun);
  return (user + system) / 1000;
}

/** How often a round is to run the step. */
function timesInRound(number, step) {
  let times = 1;
  let ms = time(number, step, times); // V8 compiles it
  while ((ms = time(number, step, times)) < ROUND_MS / 2) times *= 2;
  return Math.max(1, Math.round((times * ROUND_MS) / ms));
}

for (const { number, steps } of cases) {
  const reports = core.micro_prepare(number);
  for (const step of STEPS) steps[step].perCall = reports;
}
for (const { number, steps } of cases) for (const step of STEPS) steps[step].times = timesInRound(number, step);

const stopProfile = options.profile ? await startProfile() : undefined;
for (let round = 0; round < ROUNDS; round++) {
  for (const { number, steps } of cases) {
    for (const step of STEPS) {
      const { us, times, perCall } = steps[step];
      us.push((time(number, step, times) * 1000) / (times * perCall));
    }
  }
}
if (stopProfile) writeFileSync(options.profile, await stopProfile());

const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
const result = Object.fromEntries(
  cases.map(({ name, steps }) => {
    const us = STEPS.map((step) => [step, { median: round2(median(steps[step].us)), least: round2(Math.min(...steps[step].us)) }]);
    return [name, Object.fromEntries(us)];
  }),
);
function round2(us) {
  return Math.round(us * 100) / 100;
}

if (options.output === "json") {
  console.log(JSON.stringify({ v8: process.versions.v8, rounds: ROUNDS, us_per_report: result }, null, 2));
} else {
  console.log(`CPU µs per report in V8 ${process.versions.v8}, the median of ${ROUNDS} rounds`);
  console.log(`${"".padEnd(22)}${STEPS.map((step) => step.padStart(11)).join("")}`);
  for (const [name, us] of Object.entries(result)) {
    console.log(`${name.padEnd(22)}${STEPS.map((step) => us[step].median.toFixed(SHOWN.includes(step) ? 1 : 2).padStart(11)).join("")}`);
  }
}

/** Begins a CPU profile of the rounds; what it returns ends it, and gives a table of functions by their own time. */
async function startProfile() {
  const { Session } = await import("node:inspector/promises");
  const session = new Session();
  session.connect();
  await session.post("Profiler.enable");
  await session.post("Profiler.setSamplingInterval", { interval: 500 });
  await session.post("Profiler.start");
  return async () => {
    const { profile } = await session.post("Profiler.stop");
    const own = new Map();
    const frames = new Map(profile.nodes.map((node) => [node.id, node.callFrame]));
    let total = 0;
    profile.samples.forEach((id, n) => {
      const { url, functionName } = frames.get(id);
      if (!url.startsWith("wasm:")) return;
      const us = profile.timeDeltas[n];
      own.set(functionName, (own.get(functionName) ?? 0) + us);
      total += us;
    });
    const rows = [...own].sort(([, a], [, b]) => b - a).slice(0, 60);
    return rows.map(([name, us]) => `${((us * 100) / total).toFixed(2).padStart(6)} %  ${name}\n`).join("");
  };
}
