// Budgets for what can be counted and so does not depend on the clock: how they are compared and written. tests/bench/budgets.json
// holds them, in groups of what is counted together:
//
//   { GROUP: { compiler, machine, numbers: { NAME: COUNT }, goals: { NAME: COUNT } } }
//
// `compiler` and `machine` are there where the numbers depend on them. `goals` are where numbers are to come down to one day.

/** More than this above its budget, a number fails; more than this below, the budget is to follow. */
const TOLERANCE = 0.05;

/** How budgets are written down anew. */
const UPDATE = "scripts/bench budgets --update";

/**
 * Compares what was measured with the budgets, both in groups. Groups that were not measured are left out.
 *
 * @returns {{ failures: string[], lower: string[], held: string[] }} lines for a person; `failures` ends badly
 */
export function compare(budgets, measured) {
  const failures = [];
  const lower = [];
  const held = [];
  for (const [group, { compiler, machine, numbers }] of Object.entries(measured)) {
    const budget = budgets[group] ?? { numbers: {} };
    if (budget.machine !== undefined && budget.machine !== machine) {
      held.push(`${group}: not compared; the budgets are of ${budget.machine}, and this is ${machine}.`);
      continue;
    }
    const before = failures.length + lower.length;
    for (const name of new Set([...Object.keys(budget.numbers), ...Object.keys(numbers)])) {
      const [is, most] = [numbers[name], budget.numbers[name]];
      if (is === undefined) failures.push(`${group}: ${name} has a budget, but was not measured; ${UPDATE} removes it.`);
      else if (most === undefined) failures.push(`${group}: ${name} is ${is}, and has no budget; ${UPDATE} gives it one.`);
      else if (is > most * (1 + TOLERANCE)) failures.push(`${group}: ${difference(name, is, most)}`);
      else if (is < most * (1 - TOLERANCE)) lower.push(`${group}: ${difference(name, is, most)}`);
      else {
        const goal = budget.goals?.[name];
        if (goal !== undefined) held.push(`${group}: ${difference(name, is, most)}, goal ${goal}`);
      }
    }
    if (failures.length + lower.length === before) {
      held.push(`${group}: ${Object.keys(numbers).length} within ${TOLERANCE * 100} % of their budgets.`);
    } else if (budget.compiler !== compiler) {
      const why = `${group}: measured with ${compiler}, the budgets with ${budget.compiler}; some of the difference may be the compiler's.`;
      (failures.some((line) => line.startsWith(`${group}:`)) ? failures : lower).push(why);
    }
  }
  if (lower.length > 0) lower.push(`Better than the budgets, which can be lowered: ${UPDATE}`);
  return { failures, lower, held };
}

/** Number, budget and per cent. */
export function difference(name, is, most) {
  const percent = ((is - most) / most) * 100;
  const shown = Number.isFinite(percent) ? `${percent >= 0 ? "+" : ""}${percent.toFixed(1)} %` : is === most ? "+0.0 %" : "was nothing";
  return `${name} is ${is}, budget ${most} (${shown})`;
}

/** The budgets with what was measured in the place of what they had; goals, and groups that were not measured, stay. */
export function updated(budgets, measured) {
  const groups = Object.entries(measured).map(([group, { compiler, machine, numbers }]) => {
    const goals = budgets[group]?.goals;
    return [group, { ...(compiler && { compiler }), ...(machine && { machine }), numbers, ...(goals && { goals }) }];
  });
  return { ...budgets, ...Object.fromEntries(groups) };
}
