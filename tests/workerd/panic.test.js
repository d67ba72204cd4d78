// A panic ends its own request and harms nothing else. workerd has one isolate for the Worker and all objects here, so
// with panic=abort each of these tests would hang.

import { afterEach, expect, it } from "vitest";

import { Task, commit, plan, send, share, slice, windows } from "./messages.js";

const json = JSON.stringify;

afterEach(() => plan());

it("in the Worker harms no request in flight", async () => {
  const task = new Task("panic in the Worker");
  await task.commit(commit(1, [await slice(0, [1])]));
  const sleeping = Array.from({ length: 3 }, () => send("GET", "/internal/test/sleep"));
  for (let times = 0; times < 2; times++) expect((await send("GET", "/internal/test/panic")).status).toBe(500);
  for (const { status } of await Promise.all(sleeping)) expect(status).toBe(204);
  // Nor what objects keep.
  expect(await task.commit(commit(1, [await slice(0, [1])]))).toBe(json({ Committed: [] }));
  expect(JSON.parse(await task.gather(windows(0, 1))).Gathered.content.share).toBe(share(1));
});

it("in the ledger harms no request in flight and leaves the batch collectable", async () => {
  const task = new Task("panic in the ledger");
  await task.commit(commit(1, [await slice(0, [1, 2])]));
  const request = await task.collection(1, windows(0, 1), [1, 2]);
  // Calls: ledger, gather, freeze. The ledger panics before it sends the second and then the third.
  for (const call of [1, 2]) {
    const sleeping = send("GET", "/internal/test/sleep");
    await task.plan({ [call]: "panic" });
    await expect(task.ledger(request)).rejects.toThrow(/answered 5\d\d/);
    expect((await sleeping).status).toBe(204);
    await task.plan();
    expect(await task.commit(commit(1, [await slice(0, [1, 2])]))).toBe(json({ Committed: [] }));
  }
  expect(await task.ledger(request)).toMatch(/^\{"Share":/);
});
