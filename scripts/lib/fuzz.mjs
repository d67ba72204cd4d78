// Builds the fuzz targets with libFuzzer and runs them, or replays their inputs where there is no C++ compiler.
//
// Runs on Node 18, since it is what installs everything else.

import { execFileSync, spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const FUZZ = path.join(ROOT, "fuzz");
const MANIFEST = path.join(FUZZ, "Cargo.toml");

const USAGE = `usage: scripts/fuzz [TARGET]... [--seconds N] [--jobs N] [--keep] [--smoke]
       scripts/fuzz TARGET FILE...
       scripts/fuzz --list

Runs fuzz targets under libFuzzer, which changes inputs so that they reach more of the code, and ends with a line for
each. What it finds interesting stays in fuzz/target/corpus, and the next run goes on from there. An input that does
harm is kept in fuzz/artifacts, and the last lines say how to run it again. With files, runs the target on these.
  --seconds N  for each target (600)
  --jobs N     targets at a time (1)
  --keep       afterwards make fuzz/corpus the fewest inputs that reach what all of them reach
  --smoke      begin with fuzz/corpus only, always alike, and keep nothing
  --list       the targets

Needs a C++ compiler for libFuzzer. Without one it replays what fuzz/corpus keeps, and randomly damaged copies of it.`;

/** Inputs longer than this are mostly repetitions, and slow. */
const INPUT_BYTES_MAX = 8192;
/** Kept inputs of all targets together. */
const CORPUS_BYTES_MAX = 1 << 20;
/** A run may take this long, busy machines included; a deadlock or an endless loop takes longer. */
const ONE_RUN_S_MAX = 30;
const PROGRESS_EVERY_MS = 30_000;

function die(why) {
  console.error(`fuzz: ${why}`);
  process.exit(2);
}

const targets = readdirSync(path.join(FUZZ, "fuzz_targets"))
  .filter((file) => file.endsWith(".rs"))
  .map((file) => ({
    name: file.slice(0, -3),
    about: readFileSync(path.join(FUZZ, "fuzz_targets", file), "utf8").split("\n")[0].replace("//! ", ""),
  }));

function options() {
  let parsed;
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        seconds: { type: "string", default: "600" },
        jobs: { type: "string", default: "1" },
        keep: { type: "boolean", default: false },
        smoke: { type: "boolean", default: false },
        list: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
  } catch (error) {
    die(`${error.message}; --help lists the arguments.`);
  }
  const { values, positionals } = parsed;
  const number = (name) => {
    if (!/^[1-9]\d{0,6}$/.test(values[name])) die(`--${name} must be a number from 1 on, not "${values[name]}".`);
    return Number(values[name]);
  };
  const chosen = positionals.filter((name) => targets.some((target) => target.name === name));
  const files = positionals.filter((name) => !chosen.includes(name));
  for (const file of files) if (!existsSync(file)) die(`there is no target or file "${file}"; --list lists the targets.`);
  if (files.length > 0 && chosen.length !== 1) die("files go with one target.");
  return {
    ...values,
    seconds: number("seconds"),
    jobs: number("jobs"),
    chosen: targets.filter(({ name }) => chosen.length === 0 || chosen.includes(name)),
    files: files.map((file) => path.resolve(file)),
  };
}

// --- Building -------------------------------------------------------------------------------

const compiler = process.env.CXX || "c++";

function hasCompiler() {
  try {
    execFileSync(compiler, ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** Builds and returns the folder of the binaries. What is instrumented lives apart from what is not. */
function build(isInstrumented) {
  const folder = path.join(FUZZ, "target", isInstrumented ? "instrumented" : "plain");
  const env = { ...process.env };
  if (isInstrumented) env.RUSTC_WRAPPER = path.join(ROOT, "scripts/lib/rustc-instrumented");
  const ours = targets.flatMap(({ name }) => ["--bin", name]);
  const what = isInstrumented ? ["--features", "libfuzzer", ...ours] : ["--bin", "replay"];
  const args = ["build", "--release", "--locked", "--manifest-path", MANIFEST, "--target-dir", folder, ...what];
  try {
    execFileSync("cargo", [...args, ...(process.stderr.isTTY ? [] : ["--quiet"])], { stdio: ["ignore", 2, 2], env });
  } catch {
    die("the fuzz targets do not build; what cargo printed above says why.");
  }
  return path.join(folder, "release");
}

// --- Running --------------------------------------------------------------------------------

const children = new Set();
let stopping = false;

/** Runs a program; `line` sees each line that it prints. Returns its exit code and its last lines. */
async function run(command, args, line = () => {}) {
  const child = spawn(command, args, { cwd: ROOT, stdio: ["ignore", "pipe", "pipe"] });
  children.add(child);
  let tail = [];
  for (const stream of [child.stdout, child.stderr]) {
    let rest = "";
    stream.setEncoding("utf8").on("data", (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      lines.forEach(line);
      tail = [...tail, ...lines].slice(-80);
    });
  }
  const code = await new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => resolve(signal ?? code));
  });
  children.delete(child);
  return { code, tail };
}

for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]]) {
  process.on(signal, () => {
    stopping = true;
    children.forEach((child) => child.kill("SIGKILL"));
    process.exitCode = code;
  });
}

const shown = (file) => path.relative(process.cwd(), file) || ".";

/** Runs one target under libFuzzer. Returns whether it found nothing. */
async function fuzz(binaries, name, options) {
  const kept = path.join(FUZZ, "corpus", name);
  const work = options.smoke ? mkdtempSync(path.join(tmpdir(), "fuzz-")) : path.join(FUZZ, "target/corpus", name);
  const artifacts = path.join(FUZZ, "artifacts", name);
  for (const folder of [work, artifacts]) mkdirSync(folder, { recursive: true });
  const begun = Date.now();
  let told = begun;
  let state = {};
  const stats = {};
  const line = (text) => {
    const found = /^#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)\/(\w+).* exec\/s: (\d+)/.exec(text);
    if (found) {
      const [, executions, coverage, , inputs, , perSecond] = found;
      state = { executions, coverage, inputs };
      if (Date.now() - told < PROGRESS_EVERY_MS) return;
      told = Date.now();
      const elapsed = Math.round((told - begun) / 1000);
      console.log(`${name}: ${elapsed} s, ${executions} executions (${perSecond}/s), coverage ${coverage}, ${inputs} inputs`);
    }
    const stat = /^stat::(\w+):\s+(\d+)/.exec(text);
    if (stat) stats[stat[1]] = stat[2];
  };
  const args = [
    `-artifact_prefix=${artifacts}/`,
    `-max_total_time=${options.seconds}`,
    `-max_len=${INPUT_BYTES_MAX}`,
    `-timeout=${ONE_RUN_S_MAX}`,
    "-rss_limit_mb=2048",
    "-print_final_stats=1",
    ...(options.smoke ? ["-seed=1"] : []),
    work,
    ...(existsSync(kept) ? [kept] : []),
  ];
  const { code, tail } = await run(path.join(binaries, name), args, line);
  if (options.smoke) rmSync(work, { recursive: true, force: true });
  if (stopping) return false;
  const executions = stats.number_of_executed_units ?? state.executions ?? 0;
  console.log(
    `${name}: ${executions} executions in ${Math.round((Date.now() - begun) / 1000)} s, ` +
      `${stats.new_units_added ?? 0} new units, coverage ${state.coverage ?? 0}, ${code === 0 ? "nothing found" : "FAILED"}`,
  );
  if (code === 0) return true;
  const written = tail.map((text) => /Test unit written to (\S+)/.exec(text)).find(Boolean);
  console.error(tail.join("\n"));
  if (written) {
    console.error(`\n${name}: this input does harm: ${shown(written[1])}`);
    console.error(`to run it again: scripts/fuzz ${name} ${shown(written[1])}`);
  } else {
    console.error(`\n${name}: libFuzzer ended with ${code}; what it printed above says why.`);
  }
  return false;
}

/** Has the kept inputs be the fewest that reach what all known ones reach. */
async function keep(binaries, name) {
  const kept = path.join(FUZZ, "corpus", name);
  const next = path.join(FUZZ, "target/merged", name);
  rmSync(next, { recursive: true, force: true });
  for (const folder of [next, kept]) mkdirSync(folder, { recursive: true });
  const args = ["-set_cover_merge=1", `-max_len=${INPUT_BYTES_MAX}`, next, kept, path.join(FUZZ, "target/corpus", name)];
  const { code, tail } = await run(path.join(binaries, name), args);
  if (code !== 0) {
    console.error(tail.join("\n"));
    die(`${name}: the inputs could not be merged.`);
  }
  rmSync(kept, { recursive: true });
  renameSync(next, kept);
}

function corpusBytes() {
  const sizes = targets.flatMap(({ name }) => {
    const folder = path.join(FUZZ, "corpus", name);
    return existsSync(folder) ? readdirSync(folder).map((file) => statSync(path.join(folder, file)).size) : [];
  });
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Does `work` for each item, some at a time. */
async function each(items, atATime, work) {
  const queue = [...items];
  const worker = async () => {
    while (queue.length > 0 && !stopping) await work(queue.shift());
  };
  await Promise.all(Array.from({ length: atATime }, worker));
}

async function main() {
  const chosen = options();
  if (chosen.help) return console.log(USAGE);
  if (chosen.list) return targets.forEach(({ name, about }) => console.log(`${name.padEnd(16)} ${about}`));
  const isInstrumented = hasCompiler();
  if (!isInstrumented) {
    console.log(
      `There is no C++ compiler ("${compiler}"), which libFuzzer needs (Debian: g++). ` +
        "The kept inputs are replayed instead, and randomly damaged copies of them.",
    );
    if (chosen.keep) die("without libFuzzer there is nothing new to keep.");
  }
  const begun = Date.now();
  const binaries = build(isInstrumented);
  const names = chosen.chosen.map(({ name }) => name);
  if (chosen.files.length > 0 || !isInstrumented) {
    const args = chosen.files.length > 0 ? chosen.files : ["--damaged", `${chosen.seconds * 200}`];
    const [binary, before] = isInstrumented ? [names[0], []] : ["replay", names];
    try {
      execFileSync(path.join(binaries, binary), [...before, ...args], { stdio: "inherit" });
    } catch {
      process.exitCode = 1;
    }
    return;
  }
  const failed = [];
  await each(names, chosen.jobs, async (name) => {
    if (!(await fuzz(binaries, name, chosen))) failed.push(name);
  });
  if (stopping) return;
  if (chosen.keep) {
    for (const name of names) await keep(binaries, name);
    const bytes = corpusBytes();
    console.log(`fuzz/corpus has ${bytes} bytes`);
    if (bytes > CORPUS_BYTES_MAX) die(`fuzz/corpus should have at most ${CORPUS_BYTES_MAX}.`);
  }
  if (failed.length > 0) {
    console.error(`fuzz: FAILED: ${failed.join(", ")}`);
    process.exitCode = 1;
  } else {
    console.log(`FUZZ OK: ${names.length} targets in ${Math.round((Date.now() - begun) / 1000)} s`);
  }
}

await main();
