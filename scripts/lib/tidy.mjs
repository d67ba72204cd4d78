// Checks that ARCHITECTURE.md is true where a machine can tell, and a few rules of the house.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";

import { misplaced } from "./mutants.mjs";

const tracked = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], { encoding: "utf8" })
  .trim()
  .split("\n")
  .filter(existsSync);
const text = new Map(tracked.filter((f) => !f.endsWith(".lock")).map((f) => [f, readFileSync(f, "utf8")]));
const rust = [...text].filter(([f]) => f.endsWith(".rs"));
const isTest = (f) => /(^|\/)tests?(\/|\.rs)|\/testing\//.test(f);
const architecture = text.get("ARCHITECTURE.md");
const section = (name) => architecture.split(`\n## ${name}\n`)[1].split("\n## ")[0];
const complaints = [];
const complain = (what) => complaints.push(what);

// The map: every folder exists, with the file to begin at, and every crate is in it.
const folders = [...section("The map").matchAll(/^\| `([^`]+)` \|.*\| ([^|]+) \|$/gm)];
for (const [, folder, start] of folders) {
  if (!existsSync(folder)) complain(`the map names ${folder}, which does not exist`);
  for (const [, file] of start.matchAll(/`([^`]+)`/g)) {
    if (!existsSync(`${folder}/${file}`)) complain(`the map begins ${folder} at ${file}, which does not exist`);
  }
}
for (const manifest of tracked.filter((f) => f.endsWith("/Cargo.toml"))) {
  const crate = manifest.replace("/Cargo.toml", "");
  if (!folders.some(([, f]) => f === crate || f.startsWith(`${crate}/`))) complain(`${crate} is not in the map`);
}

const holds = (name) =>
  tracked.some((f) => f === name || f.endsWith(`/${name}`)) || rust.some(([, t]) => t.includes(`fn ${name}(`));
const namesIn = (markdown) =>
  [...markdown.matchAll(/`([^`]+)`/g)].map((m) => m[1]).filter((name) => /^[a-z0-9]+_[a-z0-9_]+$/.test(name) || name.includes("/"));

// Traps: what holds them shut exists.
for (const [, trap, held] of section("Traps").matchAll(/^\| ([^|]+) \| ([^|]+) \|$/gm)) {
  if (/^(trap|-+)$/.test(trap)) continue;
  if (namesIn(held).length === 0) complain(`nothing holds this shut: ${trap}`);
  for (const name of namesIn(held)) if (!holds(name)) complain(`${name}, which is to hold a trap shut, does not exist`);
}

// Invariants: what holds them exists.
for (const [, invariant] of section("Invariants").matchAll(/^- (\*\*I\d+ [\s\S]*?)(?=\n- \*\*I|\n*$(?![\s\S]))/gm)) {
  const named = namesIn(invariant.replace(/\*\*[\s\S]*?\*\*/, ""));
  if (named.length === 0) complain(`nothing holds: ${invariant.slice(0, 60)}`);
  for (const name of named) if (!holds(name)) complain(`${name}, which is to hold an invariant, does not exist`);
}

/** The functions of a file that match on a version or compare with one, but for those whose doc cites what each draft says. */
function tellsVersionsApart(text) {
  const found = [];
  for (const match of text.matchAll(/(?:DapVersion|Self)::V\d\d\b[^\n;]*=>|[=!]= *DapVersion::V\d\d|matches!\([^)]*DapVersion::V\d\d/g)) {
    const before = text.slice(0, match.index);
    const [, doc, name] = [...before.matchAll(/((?:^[ \t]*(?:\/\/|#\[).*\n)*)^[ \t]*(?:pub(?:\([a-z]+\))? )?(?:const )?(?:async )?fn (\w+)/gm)].at(-1) ?? [];
    const cites = (draft) => new RegExp(`DAP-${draft}|taskprov-${draft === "09" ? "07" : "04"}`).test(doc ?? "");
    if (!cites("09") || !cites("18")) found.push(name ?? "a line");
  }
  return [...new Set(found)];
}

// Rules.
for (const [f, t] of rust) {
  const lines = t.split("\n").length;
  if (lines > 700) complain(`${f} has ${lines} lines: is it still one idea?`);
  const shipped = !isTest(f) ? t.split("#[cfg(test)]")[0] : "";
  if (shipped.includes("urn:ietf:params:ppm:dap:error") && !/problem\.rs$|version\.rs$|dapctl/.test(f))
    complain(`${f} writes an error URN; only problem.rs does`);
  if (!/src\/version\.rs$|\/src\/wire\//.test(f)) {
    for (const where of tellsVersionsApart(shipped))
      complain(`${f}: ${where} tells versions apart; only the table, the wire modules and functions that cite both drafts do`);
  }
  if (/#\[ignore/.test(t)) complain(`${f} ignores a test`);
  for (const [, draft] of t.matchAll(/\bDAP-(\d\d)\b/g))
    if (!["09", "18"].includes(draft)) complain(`${f} cites DAP-${draft}, which is not implemented`);
}

// What git is told to ignore, such as files of secrets, was never added.
const ignored = execFileSync("git", ["ls-files", "--cached", "--ignored", "--exclude-standard"], { encoding: "utf8" });
for (const f of ignored.split("\n").filter(Boolean)) complain(`${f} is tracked, and .gitignore says that it must not be`);

// A workspace of its own has a lock file of its own, which nobody's build keeps up with what it shares with the others.
const interop = "tests/interop/Cargo.toml";
try {
  execFileSync("cargo", ["update", "--workspace", "--locked", "--manifest-path", interop], { stdio: "pipe" });
} catch (error) {
  const why = `${error.stderr ?? error.message}`.split("\n").find((line) => line.startsWith("error")) ?? error.message;
  complain(`tests/interop/Cargo.lock: ${why}; if it is out of date: cargo update --workspace --manifest-path ${interop}`);
}

// What scripts/mutants breaks is still there.
misplaced().forEach(complain);

for (const what of complaints) console.error(`tidy: ${what}`);
console.log(complaints.length ? `tidy: ${complaints.length} complaints` : "tidy: the architecture is as it says");
process.exit(complaints.length ? 1 : 0);
