// TaskLedger in workerd: decisions survive whatever happens to the objects, and the alarm finishes what was left.

import { abortAllDurableObjects, evictDurableObject, runDurableObjectAlarm } from "cloudflare:test";
import { afterEach, describe, expect, it } from "vitest";

import { Task, base64url, calls, commit, jobId, plan, reportId, send, slice, soft, windows, taskSpec } from "./messages.js";
import { alarm, eventually, rows, select } from "./objects.js";

const json = JSON.stringify;

afterEach(() => plan());

/** A task with the reports 1 and 2 in bucket 0, and a request to collect them. */
async function collectable(name) {
  const task = new Task(name);
  expect(await task.commit(commit(1, [await slice(0, [1, 2])]))).toBe(json({ Committed: [] }));
  return { task, request: await task.collection(1, windows(0, 1), [1, 2]) };
}

describe("a decided collection", () => {
  it("is one row with its answer, which is the same bytes for ever", async () => {
    const { task, request } = await collectable("decided");
    const answer = await task.ledger(request);
    expect(answer).toMatch(/^\{"Share":"[\w-]+"\}$/);
    await eventually(async () => expect(await select(task.ledgerStub(), "SELECT todo FROM collection")).toEqual([{ todo: 0 }]));
    expect(await rows(task.ledgerStub())).toEqual({ meta: 1, collection: 1 });
    expect(await rows(task.storeStub())).toEqual({ meta: 1, job_0: 1, sealed: 1 });
    const [{ row }] = await select(task.ledgerStub(), "SELECT hex(answer) AS row FROM collection");
    const bytes = Uint8Array.fromBase64(JSON.parse(answer).Share, { alphabet: "base64url" });
    expect(row.toLowerCase()).toBe(bytes.toHex());

    expect(await task.ledger(request)).toBe(answer);
    await evictDurableObject(task.ledgerStub());
    expect(await task.ledger(request)).toBe(answer);
    await abortAllDurableObjects();
    expect(await task.ledger(request)).toBe(answer);
    // Another request for the same batch learns nothing new.
    await evictDurableObject(task.ledgerStub());
    expect(await task.ledger(await task.collection(2, windows(0, 1), [1, 2]))).toBe(answer);
    const other = JSON.parse(await task.ledger(await task.collection(3, windows(0, 1), [1])));
    expect(other.Refused.kind).toBe("BatchMismatch");
    // The refusal is counted.
    expect(await rows(task.ledgerStub())).toEqual({ meta: 1, collection: 1, books: 1 });
  });

  it("closes its batch, even if all objects die with the answer just sent", async () => {
    const { task, request } = await collectable("closed");
    const answer = await task.ledger(request);
    // What the ledger does after its answer is cut off, or not: the alarm does what is left.
    await abortAllDurableObjects();
    expect(await task.ledger(request)).toBe(answer);
    expect(await runDurableObjectAlarm(task.ledgerStub())).toBe(true);
    expect(await select(task.ledgerStub(), "SELECT todo FROM collection")).toEqual([{ todo: 0 }]);
    expect(await task.commit(commit(2, [await slice(0, [5])]))).toBe(json({ Collected: [reportId(5)] }));
  });

  it("reaches a store that missed it, by the alarm", async () => {
    const { task, request } = await collectable("missed");
    // Calls: ledger, gather, freeze, and the seal, which is lost.
    await task.plan({ 3: "lose_request" });
    const answer = await task.ledger(request);
    await eventually(async () => expect((await calls()).length).toBe(4));
    expect(await select(task.ledgerStub(), "SELECT todo FROM collection")).toEqual([{ todo: 1 }]);
    expect(await rows(task.storeStub())).toEqual({ meta: 1, job_0: 1 });
    expect(await task.commit(commit(2, [await slice(0, [5])]))).toBe(json({ Busy: 1 }));
    expect(await runDurableObjectAlarm(task.ledgerStub())).toBe(true);
    expect(await select(task.ledgerStub(), "SELECT todo FROM collection")).toEqual([{ todo: 0 }]);
    expect(await task.commit(commit(2, [await slice(0, [5])]))).toBe(json({ Collected: [reportId(5)] }));
    expect(await task.ledger(request)).toBe(answer);
  });
});

describe("an attempt that died", () => {
  it("is rolled back by the alarm, which tries until the store is reached", async () => {
    const { task, request } = await collectable("alarm");
    // Calls: ledger, gather, the freeze, which is carried out unheard, and the thaw, which is lost.
    await task.plan({ 2: "lose_answer", 3: "lose_request" });
    expect(await task.ledger(request)).toBe(json("Busy"));
    expect(await rows(task.ledgerStub())).toEqual({ meta: 1, pending: 1 });
    const late = commit(2, [await slice(0, [5])]);
    expect(await task.commit(late)).toBe(json({ Busy: 1 }));
    const due = await alarm(task.ledgerStub());
    expect(due).toBeGreaterThan(Date.now());
    expect(due).toBeLessThan(Date.now() + 31_000);

    await evictDurableObject(task.ledgerStub());
    await task.plan({ 0: "lose_request" });
    expect(await runDurableObjectAlarm(task.ledgerStub())).toBe(true);
    expect(await task.commit(late)).toBe(json({ Busy: 1 }));
    expect(await alarm(task.ledgerStub()), "armed again").toBeGreaterThan(Date.now());

    await task.plan();
    expect(await runDurableObjectAlarm(task.ledgerStub())).toBe(true);
    expect(await calls()).toEqual(["AGGREGATE_STORE"]);
    expect(await rows(task.ledgerStub())).toEqual({ meta: 1 });
    expect(await alarm(task.ledgerStub())).toBe(null);
    expect(await task.commit(late)).toBe(json({ Committed: [] }));
    const again = await task.ledger(await task.collection(2, windows(0, 1), [1, 2, 5]));
    expect(again).toMatch(/^\{"Share":/);
  });

  it("is rolled back by the next request, without the alarm", async () => {
    const { task, request } = await collectable("next request");
    await task.plan({ 2: "lose_answer", 3: "lose_request" });
    expect(await task.ledger(request)).toBe(json("Busy"));
    await task.plan();
    await abortAllDurableObjects();
    expect(await task.ledger(request)).toMatch(/^\{"Share":/);
  });
});

describe("a released job", () => {
  it("is one row, however often the leader deletes it over HTTP", async () => {
    const token = "a-token-of-the-leader";
    const spec = { ...taskSpec(7), leader_token: token };
    const operator = { authorization: `Bearer ${base64url(new Uint8Array(16).fill(2))}`, "content-type": "application/json" };
    const created = await send("POST", "/admin/tasks", spec, operator);
    expect(created.status, created.text).toBe(201);
    const task = new Task("unused");
    const parameters = JSON.parse(created.text);
    for (const name of Object.keys(task.placement)) task.placement[name] = parameters[name];
    task.placement.retention = parameters.report_expiry_age;
    const slices = [{ ...(await slice(0, [1, 2])), bucket: { Batch: base64url(new Uint8Array(32).fill(1)) } }];
    expect(await task.commit(commit(1, slices))).toBe(json({ Committed: [] }));

    const path = `/v09/tasks/${parameters.task_id}/aggregation_jobs/${jobId(1)}`;
    for (let times = 0; times < 3; times++) {
      const { status, text } = await send("DELETE", path, undefined, { authorization: `Bearer ${token}` });
      expect(status, text).toBe(204);
    }
    const table = `released_${Math.floor(Date.now() / 1000 / parameters.report_expiry_age)}`;
    expect(await rows(task.ledgerStub())).toEqual({ meta: 1, [table]: 1 });
    const released = await select(task.ledgerStub(), `SELECT hex(job) AS job FROM ${table}`);
    expect(released).toEqual([{ job: "01".repeat(16) }]);
    // Its reports stay counted: only a collection may leave it out.
    expect(await task.commit(commit(1, slices))).toBe(json({ Committed: [] }));
    expect(await task.commit(commit(2, slices))).toBe(soft([1, 1], [2, 1]));
  });
});
