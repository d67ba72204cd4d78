// The end of objects in workerd: alarms that erase, and a task's purge.

import { runDurableObjectAlarm } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";

import { Task, base64url, commit, jobId, plan, send, slice, taskSpec } from "./messages.js";
import { alarm, eventually, rows, select } from "./objects.js";

const json = JSON.stringify;
const DAY = 86_400;
const operator = { authorization: `Bearer ${base64url(new Uint8Array(16).fill(2))}`, "content-type": "application/json" };

afterEach(() => {
  vi.useRealTimers();
  return plan();
});

/** A task with groups of one second, and a store of the group that ends in about `seconds`. */
function ending(name, seconds) {
  const task = new Task(name, { bucketsPerGroup: 1 });
  Object.assign(task.placement, { time_precision: 1, retention: 60 });
  const run = Math.floor(Date.now() / 1000) + seconds - 60 - DAY - 1;
  const store = { group: { Run: run }, shard: 0 };
  const ask = async (action) => {
    const request = { placement: task.placement, store, field: "F64", action };
    const { status, text } = await send("POST", "/internal/test/store", { store, request });
    expect(status, text).toBe(200);
    return text;
  };
  const open = () => task.ledger({ Open: { placement: task.placement, field: "F64", store } });
  const put = async (n, reports) => ask({ Commit: commit(n, [{ ...(await slice(0, reports)), bucket: { Window: run } }]) });
  return { task, stub: task.storeStub(0, run), open, put, deadline: (run + 1 + 60 + DAY) * 1000 };
}

const passed = (time) => vi.waitUntil(() => Date.now() >= time, { timeout: 10_000 });

describe("a store whose reports are all too old", () => {
  it("tells the ledger, erases itself, and stays gone", async () => {
    const { task, stub, open, put, deadline } = ending("erased", 3);
    expect(await open()).toBe(json({ Opened: [] }));
    expect(await put(1, [1, 2, 3])).toBe(json({ Committed: [] }));
    expect(await alarm(stub)).toBe(deadline);
    // Too early: nothing happens, but it is armed again.
    expect(await runDurableObjectAlarm(stub)).toBe(true);
    expect(await rows(stub)).toEqual({ meta: 1, job_0: 1 });
    expect(await alarm(stub)).toBe(deadline);

    await passed(deadline);
    await runDurableObjectAlarm(stub);
    await eventually(async () => expect(await rows(stub)).toEqual({}));
    expect(await select(stub, "SELECT name FROM sqlite_master WHERE name NOT LIKE '\\_cf%' ESCAPE '\\'")).toEqual([]);
    expect(await alarm(stub)).toBe(null);
    const { placement } = task;
    const ask = { Status: { placement, field: "F64", batches: true, after: null } };
    const { Status: status } = JSON.parse(await task.ledger(ask));
    expect(status).toMatchObject({ collections: 0, collected_reports: 0, expired_reports: 3, collecting: false });
    // What it counted outlives it.
    expect(status).toMatchObject({ totals: { accepted: 3 }, batches: [], silent: 0, next: null });
    expect(await rows(task.ledgerStub())).toEqual({ meta: 1, expired: 1, books: 1 });

    expect(await put(2, [4])).toBe(json("Expired"));
    expect(await open()).toBe(json("Expired"));
    expect(await rows(stub)).toEqual({});
    expect(await alarm(stub)).toBe(null);
  });

  it("keeps everything while the ledger does not answer", async () => {
    const { stub, open, put, deadline } = ending("unheard", 3);
    await open();
    await put(1, [1]);
    await passed(deadline);
    // The platform's own alarm may have come first.
    if ((await rows(stub)).meta === 1) {
      await plan({ 0: "lose_request" });
      await runDurableObjectAlarm(stub);
      const left = await rows(stub);
      if (left.meta === 1) expect(await alarm(stub)).toBeGreaterThan(Date.now());
    }
    await plan();
    await runDurableObjectAlarm(stub);
    await eventually(async () => expect(await rows(stub)).toEqual({}));
  });
});

describe("a JobStore", () => {
  it("is armed for the end of its first epoch", async () => {
    const task = new Task("job epochs", { bucketsPerGroup: 1 });
    task.placement.retention = 3 * DAY;
    const claim = (n) => task.job({ Claim: { placement: task.placement, job: jobId(n), digest: Array(32).fill(n), unasked: [] } });
    expect(await claim(1)).toBe(json({ Claimed: [] }));
    const due = await alarm(task.jobStub());
    expect(due).toBeGreaterThan(Date.now() + 3 * DAY * 1000);
    expect(await claim(2)).toBe(json({ Claimed: [] }));
    expect(await alarm(task.jobStub())).toBe(due);
    expect(await runDurableObjectAlarm(task.jobStub())).toBe(true);
    expect(await alarm(task.jobStub())).toBe(due);
  });
});

const config = env.CONFIG_STORE.get(env.CONFIG_STORE.idFromName("v1/config"));

const spec = taskSpec(77);

/** A task that the operator made. */
function made(parameters) {
  const task = new Task("unused");
  for (const name of Object.keys(task.placement)) task.placement[name] = parameters[name] ?? parameters.report_expiry_age;
  return task;
}

describe("the ConfigStore", () => {
  it("purges a deleted task's objects, and once more later", async () => {
    const created = await send("POST", "/admin/tasks", spec, operator);
    expect(created.status, created.text).toBe(201);
    const parameters = JSON.parse(created.text);
    const task = made(parameters);
    const slices = [{ ...(await slice(0, [1, 2])), bucket: { Batch: base64url(new Uint8Array(32).fill(1)) } }];
    expect(await task.commit(commit(1, slices))).toBe(json({ Committed: [] }));
    expect(await rows(config)).not.toHaveProperty("purge");

    const path = `/admin/tasks/${parameters.task_id}`;
    expect((await send("DELETE", `${path}?purge_after=3600`, undefined, operator)).status).toBe(204);
    expect((await rows(config)).purge).toBe(1);
    expect(await alarm(config)).toBeGreaterThan(Date.now() + 3_590_000);
    expect(await rows(task.storeStub())).toEqual({ meta: 1, job_0: 1 });
    expect(await runDurableObjectAlarm(config)).toBe(true);
    expect(await rows(task.storeStub()), "not due").toEqual({ meta: 1, job_0: 1 });

    // A task that is purged at once is armed for at once, and then for when no Worker knows it any more.
    const other = await send("POST", "/admin/tasks", { ...spec, verify_key: base64url(new Uint8Array(16).fill(78)) }, operator);
    task.placement.task_id = JSON.parse(other.text).task_id;
    expect(await task.commit(commit(1, slices))).toBe(json({ Committed: [] }));
    expect((await send("DELETE", `/admin/tasks/${task.placement.task_id}?purge_after=0`, undefined, operator)).status).toBe(204);
    await eventually(async () => {
      await runDurableObjectAlarm(config);
      expect(await rows(task.storeStub())).toEqual({});
    });
    await eventually(async () => expect((await rows(config)).purge).toBe(2));
    // Until then the ledger stays, and collects nothing of what late requests bring back.
    expect(await rows(task.ledgerStub())).toEqual({ meta: 1 });
    const due = await select(config, "SELECT hex(at) AS at FROM purge ORDER BY at DESC LIMIT 1");
    const again = parseInt(due[0].at, 16) * 1000;
    expect(again).toBeGreaterThan(Date.now() + 7_100_000);
    expect(await select(config, "SELECT count(*) AS n FROM task WHERE record IS NULL")).toEqual([{ n: 2 }]);
  });

  it("purges a task two retentions and two days after its end, or after it was said to have ended", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: Math.floor(Date.now() / 1000) * 1000 });
    const pass = (seconds) => vi.setSystemTime(Date.now() + seconds * 1000);
    const created = await send("POST", "/admin/tasks", { ...spec, verify_key: base64url(new Uint8Array(16).fill(79)) }, operator);
    const parameters = JSON.parse(created.text);
    const { task_id, report_expiry_age } = parameters;
    const task = made(parameters);
    const slices = [{ ...(await slice(0, [1, 2])), bucket: { Batch: base64url(new Uint8Array(32).fill(1)) } }];
    expect(await task.commit(commit(1, slices))).toBe(json({ Committed: [] }));
    const end = (task_expiration) => send("PATCH", `/admin/tasks/${task_id}`, { task_expiration }, operator);
    const later = 2 * report_expiry_age + 2 * DAY;
    const now = () => Date.now() / 1000;
    const hex = Uint8Array.fromBase64(task_id, { alphabet: "base64url" }).toHex();
    const at = async () => {
      const due = await select(config, `SELECT hex(at) AS at FROM purge WHERE task = x'${hex}'`);
      return due.map(({ at }) => parseInt(at, 16));
    };

    expect((await end(now() + 5 * DAY)).status).toBe(200);
    expect(await at()).toEqual([now() + 5 * DAY + later]);
    expect((await end(null)).status).toBe(200);
    expect(await at()).toEqual([]);
    expect((await end(1)).status).toBe(200);
    expect(await at(), "the past is now").toEqual([now() + later]);

    pass(later - 1);
    await runDurableObjectAlarm(config);
    expect(await rows(task.storeStub()), "it can be collected").toEqual({ meta: 1, job_0: 1 });
    pass(1);
    await runDurableObjectAlarm(config);
    await eventually(async () => expect(await rows(task.storeStub())).toEqual({}));
    expect((await end(null)).status, "gone for good").toBe(404);
  });
});
