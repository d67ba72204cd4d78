// Reads docs/rules.md: the drafts' rules and the tests that prove them, hostile cases and their answers, deviations.
//
// Runs on Node 18, since `scripts/test --only tidy` runs it before anything is installed.

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const TABLE = "docs/rules.md";
const VERSIONS = ["DAP-09", "DAP-18"];
// Versions whose rules must all be proven, for the roles that we play.
const SERVED = ["DAP-09", "DAP-18"];
const PLAYED = ["Helper", "Both", "All"];
const ROLES = [...PLAYED, "Leader", "Client", "Collector"];
const STRENGTHS = ["MUST", "MUST NOT", "REQUIRED", "SHOULD", "SHOULD NOT", "MAY", "stated"];
// What a file says that has tests of a version which is not the first.
const SPEAKS = new Map([["DAP-18", /\b(?:V18|KINDS|DapVersion::ALL)\b/]]);
// Where tests against the Worker in its real runtime are.
const END_TO_END = /^tests\/(e2e|interop)\//;

const USAGE = `usage: scripts/rules [--missing]

Checks ${TABLE}: that each rule which binds the Helper, and each hostile case, names tests that
exist, each once; that a hostile case has an end-to-end test, in a file that speaks the version;
that a rule names its section in each draft that has it; and that the deviations listed are the
"// SPEC:" comments of the code, by file and section. Prints, by role and version of DAP, how
many rules are proven of how many there are.
  --missing  also list the rules that nothing proves yet, of all roles and versions

The last line of a success is "RULES OK: N of N proven for the Helper".`;

/** The rows of the markdown tables under a heading of level two, as objects keyed by column. */
function rowsUnder(markdown, heading) {
  const section = markdown.split(`\n## ${heading}\n`)[1]?.split(/\n## /)[0];
  if (section === undefined) throw new Error(`${TABLE} has no section "${heading}"`);
  const rows = [];
  let columns = null;
  for (const line of section.split("\n")) {
    if (!line.startsWith("|")) {
      columns = null;
      continue;
    }
    const cells = line.slice(1, line.lastIndexOf("|")).split("|").map((cell) => cell.trim());
    if (columns === null) columns = cells;
    else if (!cells.every((cell) => /^-+$/.test(cell))) {
      if (cells.length !== columns.length) throw new Error(`${TABLE}: ${cells.length} cells and not ${columns.length}: ${line}`);
      rows.push(Object.fromEntries(columns.map((name, n) => [name, cells[n]])));
    }
  }
  return rows;
}

/** A cell of tests: whether the draft has the rule, which rules stand instead, and the tests. */
function readCell(cell) {
  const tests = [...cell.matchAll(/`([^`]+)`/g)].map((m) => m[1]);
  const absent = cell.startsWith("–");
  return { absent, instead: absent ? cell.match(/[A-Z]\d+/g) ?? [] : [], tests: absent ? [] : tests };
}

/** Every test of the tree: its name, as the table spells it, and the files that hold one of this name. */
function testsOf(files) {
  const tests = new Map();
  const add = (name, file) => tests.set(name, [...(tests.get(name) ?? []), file]);
  for (const [file, text] of files) {
    if (file.endsWith(".rs")) {
      const attributed = /#\[(?:test|tokio::test(?:\([^)]*\))?|wasm_bindgen_test)\]\s*(?:#\[[^\]]*\]\s*)*(?:pub )?(?:async )?fn (\w+)\s*\(/g;
      for (const [, name] of text.matchAll(attributed)) add(name, file);
      // The suite for all implementations of the storage protocol names its cases in a macro.
      for (const [, cases] of text.matchAll(/^cases!\(([^)]*)\);/gm)) {
        for (const [name] of cases.matchAll(/\w+/g)) add(name, file);
      }
    } else if (file.endsWith(".test.js")) {
      for (const [, title] of text.matchAll(/\b(?:it|test)\(\s*"([^"]+)"/g)) add(`${path.basename(file)}: ${title}`, file);
    }
  }
  return tests;
}

/** The files that hold a test of this name, which may follow the end of its file's path: `vdaf/tests.rs::name`. */
function placesOf(name, tests) {
  const [file, bare] = name.includes("::") ? name.split("::") : ["", name];
  return (tests.get(bare) ?? []).filter((place) => `/${place}`.endsWith(file && `/${file}`));
}

/** Where the code says that it departs from a draft: `file §section`. */
function deviationsOf(files, complain) {
  const found = [];
  for (const [file, text] of files) {
    if (!file.endsWith(".rs")) continue;
    for (const [comment] of text.matchAll(/\/\/ SPEC:.*(?:\n\s*\/\/(?!\/).*)*/g)) {
      const section = comment.match(/§(\d+(?:\.\d+)*)/)?.[1];
      if (section) found.push(`${file} §${section}`);
      else complain(`${file}: a "// SPEC:" comment does not say from which section it departs`);
    }
  }
  return found;
}

/** What is in the first list more often than in the second. */
function surplus(some, others) {
  const left = [...some];
  for (const other of others) if (left.includes(other)) left.splice(left.indexOf(other), 1);
  return left;
}

/** Reads the table and the tree. Complaints are sentences; counts are by row of the summary and version. */
export function readRules(root = ROOT) {
  const complaints = [];
  const complain = (what) => complaints.push(what);
  const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], { cwd: root, encoding: "utf8" })
    .trim()
    .split("\n")
    .filter((file) => /\.rs$|\.test\.js$/.test(file) && existsSync(path.join(root, file)))
    .map((file) => [file, readFileSync(path.join(root, file), "utf8")]);
  const tests = testsOf(files);
  const markdown = readFileSync(path.join(root, TABLE), "utf8");
  const ours = rowsUnder(markdown, "Rules of aggregators");
  const others = rowsUnder(markdown, "Rules of other roles");
  const cases = rowsUnder(markdown, "Hostile cases");
  const ids = new Set();
  const counts = new Map();
  const missing = [];

  const count = (group, version, isProven) => {
    const key = `${group} ${version}`;
    const [proven, total] = counts.get(key) ?? [0, 0];
    counts.set(key, [proven + Number(isProven), total + 1]);
  };
  const texts = new Map(files);
  const readRow = (id, row, group, isOurs, isCase) => {
    if (ids.has(id)) complain(`${id} is in the table twice`);
    ids.add(id);
    const bound = VERSIONS.map((version) => [version, readCell(row[version])]).filter(([, cell]) => !cell.absent);
    for (const [version, cell] of bound) {
      count(group, version, cell.tests.some((name) => placesOf(name, tests).length > 0));
      if (cell.tests.length === 0) {
        missing.push(`${id} in ${version}`);
        if (isOurs && SERVED.includes(version)) complain(`${id}: nothing proves it in ${version}`);
      }
      if (new Set(cell.tests).size !== cell.tests.length) complain(`${id} names a test twice`);
      for (const name of cell.tests) {
        const places = placesOf(name, tests);
        if (places.length === 0) complain(`${id}: there is no test ${name}`);
        if (places.length > 1) complain(`${id}: ${name} is the name of several tests: ${places.join(", ")}`);
      }
      const isEndToEnd = cell.tests.some((name) => placesOf(name, tests).some((file) => END_TO_END.test(file)));
      if (isCase && cell.tests.length > 0 && !isEndToEnd) complain(`${id}: none of its tests is end to end`);
      const speaks = SPEAKS.get(version);
      const isSpoken = cell.tests.some((name) =>
        placesOf(name, tests).some((file) => END_TO_END.test(file) && speaks?.test(texts.get(file))),
      );
      if (isCase && speaks && cell.tests.length > 0 && isEndToEnd && !isSpoken) {
        complain(`${id}: none of its end-to-end tests is in a file that speaks ${version}`);
      }
    }
  };

  for (const row of [...ours, ...others]) {
    if (!ROLES.includes(row.who)) complain(`${row.id} binds "${row.who}"`);
    if (ours.includes(row) !== PLAYED.includes(row.who)) complain(`${row.id} is in the wrong section for ${row.who}`);
    if (!STRENGTHS.includes(row.strength)) complain(`${row.id} is as strong as "${row.strength}"`);
    const sections = row["§"].split("; ");
    const drafts = sections.map((section) => section.match(/^(?:(18|taskprov|04): )?\d+(?:\.\d+)*$/)?.[1] ?? "09");
    const isOrdered = ["09", "18", "09 18", "taskprov", "04", "taskprov 04"].includes(drafts.join(" "));
    if (!isOrdered || !sections.every((section) => /^(?:\w+: )?\d[\d.]*$/.test(section))) complain(`${row.id} has no section`);
    if (!readCell(row["DAP-18"]).absent && !["18", "04"].includes(drafts.at(-1))) complain(`${row.id} names no section of DAP-18`);
    readRow(row.id, row, row.who, PLAYED.includes(row.who), false);
  }
  for (const row of cases) readRow(`case ${row.case}`, row, "hostile cases", true, true);
  for (const row of [...ours, ...others]) {
    for (const version of VERSIONS) {
      for (const id of readCell(row[version]).instead) if (!ids.has(id)) complain(`${row.id} gives way to ${id}, which does not exist`);
    }
  }

  const listed = rowsUnder(markdown, "Deviations").map((row) => `${row.where.replaceAll("`", "")} §${row["§"].split(" ").at(-1)}`);
  const marked = deviationsOf(files, complain);
  for (const place of surplus(marked, listed)) complain(`${place} is a "// SPEC:" that the deviations do not list`);
  for (const place of surplus(listed, marked)) complain(`${place} is a deviation that no "// SPEC:" marks`);

  return { complaints, counts, missing, deviations: marked.length };
}

/** The summary, a line for each role. */
function summary(counts) {
  const of = (group, version) => {
    const [proven, total] = counts.get(`${group} ${version}`) ?? [0, 0];
    return `${proven}/${total}`.padStart(9);
  };
  const line = (title, group) => `${title.padEnd(22)}${VERSIONS.map((version) => of(group, version)).join("")}`;
  return [
    `${"".padEnd(22)}${VERSIONS.map((version) => version.padStart(9)).join("")}`,
    line("Helper", "Helper"),
    line("both aggregators", "Both"),
    line("all roles", "All"),
    line("hostile cases", "hostile cases"),
    line("Leader", "Leader"),
    line("Client", "Client"),
    line("Collector", "Collector"),
  ].join("\n");
}

function main() {
  const { values } = parseArgs({ options: { missing: { type: "boolean" }, help: { type: "boolean", short: "h" } } });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const { complaints, counts, missing, deviations } = readRules();
  console.log(summary(counts));
  if (values.missing) console.log(missing.map((what) => `not proven: ${what}`).join("\n"));
  for (const complaint of complaints) console.error(`rules: ${complaint}`);
  const [proven, total] = [...PLAYED, "hostile cases"]
    .flatMap((group) => SERVED.map((version) => counts.get(`${group} ${version}`) ?? [0, 0]))
    .reduce(([a, b], [c, d]) => [a + c, b + d], [0, 0]);
  console.log(
    complaints.length
      ? `rules: ${complaints.length} complaints; ${proven} of ${total} proven for the Helper`
      : `RULES OK: ${proven} of ${total} proven for the Helper; deviations: ${deviations}`,
  );
  return complaints.length ? 1 : 0;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    process.exitCode = main();
  } catch (error) {
    console.error(`rules: ${error.message}${error.code?.startsWith("ERR_PARSE_ARGS") ? "; --help lists the options" : ""}`);
    process.exitCode = error.code?.startsWith("ERR_PARSE_ARGS") ? 2 : 1;
  }
}
