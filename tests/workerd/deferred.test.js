// Jobs that are answered later, in workerd: what a JobStore's alarm does, and what survives eviction and aborts.

import { abortAllDurableObjects, evictDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";

import { Task, base64url, calls, jobId, plan, send, taskSpec } from "./messages.js";
import { alarm, rows, rowsWritten, select, statements } from "./objects.js";

const json = JSON.stringify;
const operator = { authorization: `Bearer ${base64url(new Uint8Array(16).fill(2))}`, "content-type": "application/json" };
const digest = Array(32).fill(1);

afterEach(() => plan());

async function admin(method, path, body) {
  const { status, text } = await send(method, `/admin/${path}`, body, operator);
  expect(status, text).toBeLessThan(300);
  return JSON.parse(text || "null");
}

/** A task that the operator made, with groups, so that its jobs write to their JobStore. */
async function made(byte) {
  const spec = { ...taskSpec(byte), batch_mode: "time-interval", buckets_per_group: 1 };
  const parameters = await admin("POST", "tasks", spec);
  const task = new Task("unused");
  for (const name of Object.keys(task.placement)) task.placement[name] = parameters[name] ?? parameters.report_expiry_age;
  return task;
}

const u32 = (n) => [n >>> 24, (n >>> 16) & 255, (n >>> 8) & 255, n & 255];
const u64 = (n) => [...u32(Math.floor(n / 2 ** 32)), ...u32(n % 2 ** 32)];

/** A request to begin a job of so many reports, none of which opens. DAP-09 §4.5.1.1. */
function init(reports) {
  const time = u64(Math.floor(Date.now() / 1000) - 10);
  const prepare = (n) => [
    ...[...new Uint8Array(12), ...u32(n)], ...time, // id, time
    ...u32(0), // public share
    255, ...[0, 1, 9], ...u32(1), 9, // to a key that there is not
    ...u32(1), 0, // the leader's message
  ];
  const inits = Array.from({ length: reports }, (_, n) => prepare(n)).flat();
  return base64url([...u32(0), 1, ...u32(inits.length), ...inits]);
}

const begin = (task, n, pieces, pieceLen = 2) =>
  task.job({
    Deferred: {
      Begin: {
        placement: task.placement, job: jobId(n), digest, has_rounds: false,
        piece_len: pieceLen, pieces, body: init(pieces * pieceLen),
      },
    },
  });
const poll = (task, n) => task.job({ Deferred: { Poll: { job: jobId(n), asked: { Step: 0 } } } });
const pending = json({ Deferred: { Pending: { step: 0 } } });

/** The state of a job when nothing is to be done any more. Looks into the object: calls may be made to fail. */
async function settled(task, n) {
  const due = async () => (await select(task.jobStub(), "SELECT due FROM deferred"))[0].due;
  await vi.waitUntil(async () => (await due()) === null, { timeout: 25_000 });
  return JSON.parse(await poll(task, n)).Deferred;
}

const partsDone = async (task) =>
  (await select(task.jobStub(), "SELECT count(*) AS n FROM deferred_part WHERE part >= 0"))[0].n;

describe("a job that is answered later", () => {
  it("is worked on by alarms, piece after piece, and forgets its request in the end", async () => {
    const task = await made(31);
    expect(await begin(task, 1, 3)).toBe(pending);
    const { Ready } = await settled(task, 1);
    expect(Ready.answers).toHaveLength(3);
    // DAP-09: 4 bytes of length, and 18 for each report that is rejected.
    for (const answer of Ready.answers) expect(Uint8Array.fromBase64(answer, { alphabet: "base64url" })).toHaveLength(40);
    // One row, the answers, and a claim for each piece.
    expect(await rows(task.jobStub())).toMatchObject({ epoch: 1, deferred: 1, deferred_part: 3 });
    expect((await select(task.jobStub(), "SELECT due FROM deferred"))[0].due).toBe(null);
    // What is left is to be forgotten some day.
    expect(await alarm(task.jobStub())).not.toBe(null);
    expect(rowsWritten(await statements(task.jobStub(), () => poll(task, 1)))).toBe(0);
  });

  it("goes on where it was when its object is evicted or reset", async () => {
    const task = await made(32);
    expect(await begin(task, 1, 40)).toBe(pending);
    for (const crash of [() => evictDurableObject(task.jobStub()), abortAllDurableObjects]) {
      const done = await partsDone(task);
      await vi.waitUntil(async () => (await partsDone(task)) > Math.min(done, 38), { timeout: 20_000 });
      await crash();
    }
    expect((await settled(task, 1)).Ready.answers).toHaveLength(40);
  });

  it("is tried again later when something does not answer", async () => {
    const task = await made(33);
    // The first call is the one that begins it; the next are to find its task, keys and objects.
    await plan(Object.fromEntries(Array.from({ length: 3 }, (_, n) => [n + 1, "lose_request"])));
    expect(await begin(task, 1, 2)).toBe(pending);
    await vi.waitUntil(async () => (await calls()).length > 4, { timeout: 25_000 });
    expect((await settled(task, 1)).Ready.answers).toHaveLength(2);
  });

  it("fails for good when its task is deleted", async () => {
    const task = await made(34);
    await admin("DELETE", `tasks/${task.placement.task_id}`);
    expect(await begin(task, 1, 2)).toBe(pending);
    const { Failed } = await settled(task, 1);
    expect(Failed.Abort).toMatchObject({ kind: "UnrecognizedTask" });
    expect(await rows(task.jobStub())).toEqual({ epoch: 1, deferred: 1 });
  });

  it("leaves nothing when its task is purged", async () => {
    const task = await made(35);
    expect(await begin(task, 1, 40)).toBe(pending);
    await vi.waitUntil(async () => (await partsDone(task)) > 0, { timeout: 20_000 });
    expect(await task.job("Purge")).toBe(json("Done"));
    // What was on its way finds nothing to go on with.
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect(await poll(task, 1)).toBe(json("Unknown"));
    expect((await rows(task.jobStub())).deferred).toBe(undefined);
  });
});
