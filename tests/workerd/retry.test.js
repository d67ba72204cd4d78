// What the platform itself says about a call that fails. Errors that it calls retryable or overloaded are made by the
// plans of tests/e2e/tests/retries.rs.

import { runInDurableObject } from "cloudflare:test";
import { afterEach, expect, it } from "vitest";

import { Task, calls, commit, plan, slice, windows } from "./messages.js";
import { eventually } from "./objects.js";

afterEach(() => plan());

it("an object that is reset during a call is not asked again, as the platform does not call that retryable", async () => {
  const task = new Task("reset during a call");
  await task.commit(commit(1, [await slice(0, [1, 2])]));
  const request = await task.collection(1, windows(0, 1), [1, 2]);
  // The ledger waits for a store when it is reset.
  await task.plan({ 1: "hold_request" });
  const refused = expect(task.ledger(request)).rejects.toThrow(/answered 503/);
  await eventually(async () => expect((await calls()).length).toBe(2));
  const reset = runInDurableObject(task.ledgerStub(), (_, state) => state.abort("reset on purpose"));
  const error = await reset.catch((error) => error);
  expect([error.remote, error.retryable, error.overloaded]).toEqual([true, undefined, undefined]);
  await refused;
  expect(await calls()).toEqual(["TASK_LEDGER", "AGGREGATE_STORE"]);
  // The leader's own repeat finds a new object, and the batch as it was.
  await task.plan();
  expect(await task.ledger(request)).toMatch(/^\{"Share":/);
});
