// The comparison with budgets can fail, and says what a person needs: `scripts/test --only budgets` runs this first.
import assert from "node:assert/strict";
import { test } from "node:test";

import { compare, updated } from "../../scripts/lib/budgets.mjs";

const group = (numbers, compiler = "rustc 1", machine = "x64") => ({ instructions: { compiler, machine, numbers } });

test("a number within five per cent of its budget holds, on either side", () => {
  for (const is of [950, 1000, 1050]) {
    const { failures, lower, held } = compare(group({ whole: 1000 }), group({ whole: is }));
    assert.deepEqual([failures, lower], [[], []], `${is}`);
    assert.deepEqual(held, ["instructions: 1 within 5 % of their budgets."]);
  }
});

test("more than five per cent above its budget a number fails, with number, budget and per cent", () => {
  const { failures, lower } = compare(group({ open: 10, whole: 1000 }), group({ open: 10, whole: 1051 }));
  assert.deepEqual(failures, ["instructions: whole is 1051, budget 1000 (+5.1 %)"]);
  assert.deepEqual(lower, []);
});

test("more than five per cent below, it is said how the budget is lowered, and nothing fails", () => {
  const { failures, lower } = compare(group({ whole: 1000 }), group({ whole: 900 }));
  assert.deepEqual(failures, []);
  assert.deepEqual(lower, [
    "instructions: whole is 900, budget 1000 (-10.0 %)",
    "Better than the budgets, which can be lowered: scripts/bench budgets --update",
  ]);
});

test("with another compiler the failure says so", () => {
  const { failures } = compare(group({ whole: 1000 }), group({ whole: 2000 }, "rustc 2"));
  assert.equal(failures.length, 2);
  assert.match(failures[1], /with rustc 2, the budgets with rustc 1/);
});

test("one request more than the few that a job takes fails, and so does the first of what was none", () => {
  const { failures } = compare(group({ requests: 2, reads: 0, rows: 0 }), group({ requests: 3, reads: 1, rows: 0 }));
  assert.deepEqual(failures, [
    "instructions: requests is 3, budget 2 (+50.0 %)",
    "instructions: reads is 1, budget 0 (was nothing)",
  ]);
});

test("a number without a budget fails, and a budget without its number", () => {
  const { failures } = compare(group({ old: 1 }), group({ new: 1 }));
  assert.equal(failures.length, 2);
  assert.match(failures[0], /old has a budget, but was not measured/);
  assert.match(failures[1], /new is 1, and has no budget/);
  assert.equal(compare({}, group({ new: 1 })).failures.length >= 1, true);
});

test("instructions of another architecture are not compared, and what was not measured is left out", () => {
  const { failures, held } = compare(group({ whole: 1 }), group({ whole: 9 }, "rustc 1", "arm64"));
  assert.deepEqual(failures, []);
  assert.match(held[0], /not compared; the budgets are of x64, and this is arm64/);
  assert.deepEqual(compare(group({ whole: 1 }), {}), { failures: [], lower: [], held: [] });
});

test("a size is shown with its goal", () => {
  const budgets = { size: { compiler: "rustc 1", numbers: { worker: 100 }, goals: { worker: 60 } } };
  const { held } = compare(budgets, { size: { compiler: "rustc 1", numbers: { worker: 101 } } });
  assert.equal(held[0], "size: worker is 101, budget 100 (+1.0 %), goal 60");
});

test("an update takes what was measured, keeps goals and what was not, and then everything holds", () => {
  const budgets = { ...group({ whole: 1000, old: 1 }), size: { numbers: { worker: 100 }, goals: { worker: 60 } } };
  const measured = group({ whole: 500, new: 1 }, "rustc 2");
  const after = updated(budgets, measured);
  assert.deepEqual(after, { ...measured, size: budgets.size });
  assert.deepEqual(compare(after, measured).failures, []);
  const smaller = updated(budgets, { size: { numbers: { worker: 90 } } });
  assert.deepEqual(smaller.size, { numbers: { worker: 90 }, goals: { worker: 60 } });
});
