// Breaks a rule of the storage protocol in the real code, by a textual change, and runs what should notice: the
// simulation, or tests of the core. Once for each change in tests/mutants/mutants.mjs.
//
// Runs on Node 18, since it is what installs everything else.

import { execFileSync, spawn } from "node:child_process";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

import { MUTANTS } from "../../tests/mutants/mutants.mjs";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");

const USAGE = `usage: scripts/mutants [--only NAME]... [--list] [--check]

Copies the working tree to target/mutants/tree and there breaks the code in each of the ways of
tests/mutants/mutants.mjs, one at a time; builds it, and runs what should notice: schedules of the
simulation up to the first violation, or tests of daphne-core. Prints the seed or the test that
noticed. A mutant that nothing notices is a failure: a test is missing.
  --only NAME  this mutant; may be given several times
  --list       the mutants, and what each breaks
  --check      only see that each change still has its one place in the code

The last line of a success is "MUTANTS OK: N of N caught". Half a minute to a minute for each.`;

/** What is broken in the code no longer has its one place there; a list of sentences. */
export function misplaced(root = ROOT) {
  const complaints = [];
  const names = new Set();
  for (const { name, says, edits, noticed_by: by, seeds } of MUTANTS) {
    if (names.has(name)) complaints.push(`two mutants are named ${name}`);
    names.add(name);
    if (!says || !edits?.length) complaints.push(`mutant ${name} does not say what it breaks`);
    if (by === "simulation" ? !seeds : !by?.tests?.length) complaints.push(`mutant ${name} does not say what notices it`);
    for (const { file, find, replace } of edits) {
      const place = path.join(root, file);
      const found = existsSync(place) ? readFileSync(place, "utf8").split(find).length - 1 : 0;
      if (found !== 1) complaints.push(`mutant ${name}: its text is ${found} times in ${file}: ${find.split("\n")[0]}`);
      if (find === replace) complaints.push(`mutant ${name} changes nothing in ${file}`);
    }
  }
  return complaints;
}

// --- Processes and their end ----------------------------------------------------------------

const TARGET = path.join(ROOT, "target/mutants");
const TREE = path.join(TARGET, "tree");
const OWNER = path.join(TARGET, "owner");
let child;
let owns = false;
let stopping = false;

/** Runs a program in a process group of its own. Returns its exit code and all that it printed. */
async function run(command, args) {
  if (stopping) throw new Error("stopped");
  const env = { ...process.env, CARGO_TARGET_DIR: TARGET };
  child = spawn(command, args, { cwd: TREE, env, detached: true, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const code = await new Promise((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => resolve(signal ?? code));
  });
  child = undefined;
  return { code, output };
}

function end(code) {
  stopping = true;
  try {
    if (child) process.kill(-child.pid, "SIGKILL");
  } catch {
    // It has ended.
  }
  if (owns) {
    rmSync(TREE, { recursive: true, force: true });
    rmSync(OWNER, { force: true });
  }
  process.exit(code);
}

/** The copy has a fixed place, so that what was compiled there last time is of use; so there is one at a time. */
function claimTree() {
  mkdirSync(TARGET, { recursive: true });
  try {
    writeFileSync(OWNER, String(process.pid), { flag: "wx" });
  } catch {
    const other = Number(readFileSync(OWNER, "utf8"));
    let lives = true;
    try {
      process.kill(other, 0);
    } catch {
      lives = false;
    }
    if (lives) throw new Error(`process ${other} is running scripts/mutants here`);
    writeFileSync(OWNER, String(process.pid));
  }
  owns = true;
  rmSync(TREE, { recursive: true, force: true });
}

function copyTree() {
  const listed = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], { cwd: ROOT });
  for (const file of new Set(listed.toString().split("\0"))) {
    // With new times: what an earlier run compiled from a changed copy must not pass for this one's.
    if (file && existsSync(path.join(ROOT, file))) cpSync(path.join(ROOT, file), path.join(TREE, file));
  }
}

// --- Mutants --------------------------------------------------------------------------------

const SIMULATION = ["--locked", "--quiet", "--profile", "simulation", "-p", "simulation", "--bin", "simulate"];
const CORE = ["--locked", "--quiet", "-p", "daphne-core"];

/** Fails if it does not compile: that would prove nothing. */
async function build(args) {
  const { code, output } = await run("cargo", args);
  const errors = output.split("\n").filter((line) => /^error/.test(line));
  if (code !== 0) throw new Error(`it does not compile: ${errors[0] ?? code}\n${output}`);
}

async function simulate(seeds) {
  await build(["build", ...SIMULATION]);
  const { code, output } = await run(path.join(TARGET, "simulation/simulate"), ["--first-failure", "--seeds", seeds]);
  if (code === 0) return null;
  const found = /^first violation: seed (\d+): (.*)/m.exec(output);
  if (!found) throw new Error(`the simulation ended with ${code}\n${output}`);
  return { after: `${Number(found[1]) + 1} schedules`, why: found[2] };
}

/** Tests that fail without any change: they notice nothing. */
const failing = new Set();

/** Runs everything once on the code as it is, so that only a mutant can be what is noticed. */
async function tryUnchanged(mutants) {
  const targets = [...new Set(mutants.flatMap(({ noticed_by: by }) => by.tests ?? []))];
  const found = targets.length > 0 ? await test(targets) : null;
  for (const name of found?.failed ?? []) failing.add(name);
  if (found) console.log(`FAILED    without any change: ${found.why}`);
  if (!mutants.some(({ noticed_by: by }) => by === "simulation")) return;
  const seen = await simulate(2_000);
  if (seen) throw new Error(`the simulation fails without any change: ${seen.why}`);
}

async function test(targets) {
  const args = targets.flatMap((target) => (target === "lib" ? ["--lib"] : ["--test", target]));
  await build(["test", "--no-run", ...CORE, ...args]);
  const { code, output } = await run("cargo", ["test", "--no-fail-fast", ...CORE, ...args]);
  if (code === 0) return null;
  let failed = [...new Set([...output.matchAll(/^test (\S+) \.\.\. FAILED$|^    ([a-z][a-z0-9_:]*)$/gm)].map((m) => m[1] ?? m[2]))];
  if (failed.length === 0) throw new Error(`the tests ended with ${code}\n${output}`);
  failed = failed.filter((name) => !failing.has(name));
  if (failed.length === 0) return null;
  return { failed, after: `${failed.length} tests of ${targets.join(", ")}`, why: failed.join(", ") };
}

async function tryMutant({ edits, noticed_by: by, seeds }) {
  const changed = new Map();
  for (const { file, find, replace } of edits) {
    const text = changed.get(file) ?? readFileSync(path.join(ROOT, file), "utf8");
    changed.set(file, text.replace(find, () => replace));
  }
  for (const [file, text] of changed) writeFileSync(path.join(TREE, file), text);
  try {
    return by === "simulation" ? await simulate(seeds) : await test(by.tests);
  } finally {
    if (!stopping) for (const file of changed.keys()) cpSync(path.join(ROOT, file), path.join(TREE, file));
  }
}

async function tryAll(mutants) {
  claimTree();
  copyTree();
  await tryUnchanged(mutants);
  let caught = 0;
  for (const mutant of mutants) {
    const begun = performance.now();
    const found = await tryMutant(mutant).catch((error) => ({ error }));
    const seconds = Math.round((performance.now() - begun) / 1000);
    if (found?.error) console.log(`FAILED    ${mutant.name}: ${found.error.message}`);
    else if (!found) console.log(`SURVIVED  ${mutant.name} (${seconds} s): ${mutant.says}`);
    else {
      caught += 1;
      console.log(`caught    ${mutant.name}, after ${found.after} (${seconds} s): ${found.why.slice(0, 160)}`);
    }
  }
  const all = caught === mutants.length && failing.size === 0;
  console.log(`MUTANTS ${all ? "OK" : "FAILED"}: ${caught} of ${mutants.length} caught`);
  return all ? 0 : 1;
}

async function main() {
  const { values } = parseArgs({
    options: {
      only: { type: "string", multiple: true },
      list: { type: "boolean", default: false },
      check: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return console.log(USAGE);
  if (values.list) return MUTANTS.forEach(({ name, says }) => console.log(`${name}: ${says}`));
  const unknown = values.only?.find((name) => !MUTANTS.some((m) => m.name === name));
  if (unknown) throw new Error(`there is no mutant "${unknown}"; --list lists them`);
  const complaints = misplaced();
  for (const complaint of complaints) console.error(`mutants: ${complaint}`);
  if (complaints.length > 0) return 1;
  if (values.check) return console.log(`MUTANTS OK: ${MUTANTS.length} have their places`);
  return tryAll(MUTANTS.filter(({ name }) => values.only?.includes(name) ?? true));
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]]) process.on(signal, () => end(code));
  process.stdout.on("error", () => end(1));
  try {
    end((await main()) ?? 0);
  } catch (error) {
    console.error(`mutants: ${error.message}${error.code?.startsWith("ERR_PARSE_ARGS") ? "; --help lists the options" : ""}`);
    end(error.code?.startsWith("ERR_PARSE_ARGS") ? 2 : 1);
  }
}
