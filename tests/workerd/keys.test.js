// HPKE keys in workerd: the schedule, driven by the ConfigStore's alarm, and the list that clients get meanwhile.

import { abortAllDurableObjects, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { base64url, send, taskSpec } from "./messages.js";
import { alarm, eventually, rows, select } from "./objects.js";

const HOUR = 3_600;
const DAY = 24 * HOUR;
const operator = { authorization: `Bearer ${base64url(new Uint8Array(16).fill(2))}`, "content-type": "application/json" };
const policy = { pending_for: HOUR, active_for: 28 * DAY, expired_for: 7 * DAY, kem: "X25519HkdfSha256" };

const spec = taskSpec(7);

const config = () => env.CONFIG_STORE.get(env.CONFIG_STORE.idFromName("v1/config"));

async function admin(method, path, body) {
  const { status, text } = await send(method, `/admin/${path}`, body, operator);
  expect(status, text).toBeLessThan(300);
  return JSON.parse(text);
}

/** Ids by state, in the order of the list. */
async function ids() {
  const states = { pending: [], active: [], expired: [], destroyed: [] };
  for (const { config, state } of (await admin("GET", "hpke_keys")).keys) states[state].push(config.id);
  return states;
}

/** What clients get: the list's bytes. */
async function list() {
  const answer = await exports.default.fetch(new Request("http://worker/v09/hpke_config"));
  expect(answer.status).toBe(200);
  return base64url(await answer.arrayBuffer());
}

/** Ids in the list. */
const listed = async () => {
  const bytes = Uint8Array.fromBase64(await list(), { alphabet: "base64url" });
  const ids = [];
  // An id, three algorithms, and a key behind its length.
  for (let at = 2; at < bytes.length; at += 9 + bytes[at + 7] * 256 + bytes[at + 8]) ids.push(bytes[at]);
  return ids;
};

const copied = async () => JSON.parse(await env.CONFIG.get("hpke")).map((key) => `${key.config.id} ${key.state.state}`);

/** The clock of the Worker and its objects; whole seconds, as they count. */
const start = Math.floor(Date.now() / 1000) * 1000;
const pass = (seconds) => vi.setSystemTime(Date.now() + seconds * 1000);
const due = async () => ((await alarm(config())) - Date.now()) / 1000;

const crash = () => abortAllDurableObjects();

beforeEach(() => vi.useFakeTimers({ toFake: ["Date"], now: start }));
afterEach(() => vi.useRealTimers());

describe("a schedule", () => {
  it("is followed by the alarm, whatever is repeated, late or cut off", async () => {
    await admin("PUT", "hpke_policy", { policy });
    expect(await ids()).toEqual({ pending: [], active: [0], expired: [], destroyed: [] });
    const first = await list();
    expect(await due()).toBe(28 * DAY - HOUR);

    // Too early: nothing changes, and it is armed again.
    expect(await runDurableObjectAlarm(config())).toBe(true);
    expect(await due()).toBe(28 * DAY - HOUR);
    const stored = await select(config(), "SELECT * FROM hpke");

    // A pending key is made, and opens reports in every Worker before it is published.
    pass(28 * DAY - HOUR);
    await runDurableObjectAlarm(config());
    expect(await ids()).toEqual({ pending: [1], active: [0], expired: [], destroyed: [] });
    expect(await copied()).toEqual(["0 active", "1 pending"]);
    expect((await select(config(), "SELECT * FROM hpke WHERE id = 0"))[0].record).toEqual(stored[0].record);
    expect(await list()).toBe(first);
    expect(await due()).toBe(HOUR);
    await crash();
    await runInDurableObject(config(), (_, state) => state.storage.deleteAlarm());
    await runInDurableObject(config(), (instance) => instance.alarm());
    expect(await ids()).toEqual({ pending: [1], active: [0], expired: [], destroyed: [] });
    expect(await due()).toBe(HOUR);

    // It takes over, much too late, in one step.
    pass(3 * DAY);
    expect(await listed()).toEqual([0]);
    await runDurableObjectAlarm(config());
    expect(await ids()).toEqual({ pending: [], active: [1], expired: [0], destroyed: [] });
    expect(await copied()).toEqual(["1 active", "0 expired"]);
    pass(60);
    expect(await listed()).toEqual([1]);
    const [{ record }] = await select(config(), "SELECT record FROM hpke WHERE id = 0");
    const expired = JSON.parse(new TextDecoder().decode(record));
    expect(expired.sealed_private_key).not.toBe("");
    const { since, state } = expired;
    expect(state.accepts_until - since).toBe(7 * DAY);
    // No task was ever made, so nothing has a retention.
    expect(state.destroyed_at - state.accepts_until).toBe(4 * DAY);
    expect(await due()).toBe(state.destroyed_at - Date.now() / 1000);

    // Its private key goes when nothing can need it.
    pass(11 * DAY);
    await runDurableObjectAlarm(config());
    expect(await ids()).toEqual({ pending: [], active: [1], expired: [], destroyed: [0] });
    const [gone] = await select(config(), "SELECT record FROM hpke WHERE id = 0");
    expect(JSON.parse(new TextDecoder().decode(gone.record)).sealed_private_key).toBe("");
    expect(await rows(config())).toMatchObject({ hpke: 2, setting: 1 });

    // Off: the alarm that is still armed finds nothing to do.
    expect((await admin("PUT", "hpke_policy", { policy: null })).next_change).toBe(null);
    pass(1_000 * DAY);
    await runDurableObjectAlarm(config());
    expect(await ids()).toEqual({ pending: [], active: [1], expired: [], destroyed: [0] });
    expect(await alarm(config())).toBe(null);
  });

  it("is armed again by a request, should its object have lost its alarm in a crash", async () => {
    await admin("PUT", "hpke_policy", { policy });
    await runInDurableObject(config(), (_, state) => state.storage.deleteAlarm());
    await crash();
    await admin("GET", "hpke_keys");
    expect(await due()).toBeGreaterThan(0);
    await admin("PUT", "hpke_policy", { policy: null });
  });
});

describe("the list of configurations", () => {
  it("is the same bytes from memory, from KV, and from the ConfigStore", async () => {
    const made = await admin("POST", "hpke_keys", { kem: "P256HkdfSha256" });
    await admin("PATCH", `hpke_keys/${made.config.id}`, { pinned: true });
    const bytes = await list();
    expect(await list(), "memory").toBe(bytes);
    pass(61);
    expect(await list(), "KV").toBe(bytes);
    await env.CONFIG.delete("hpke");
    pass(61);
    expect(await list(), "the ConfigStore").toBe(bytes);
    await crash();
    await env.CONFIG.put("hpke", "from other code");
    pass(61);
    expect(await list(), "the ConfigStore after a crash").toBe(bytes);
  });
});

/** Puts to KV go through `put`, which gets what does the real one, and its number. */
async function withPuts(put, work) {
  const prototype = Object.getPrototypeOf(env.CONFIG);
  const real = prototype.put;
  let n = 0;
  const spy = vi.spyOn(prototype, "put").mockImplementation(function (...args) {
    return args[0] === "hpke" ? put(() => real.apply(this, args), n++) : real.apply(this, args);
  });
  try {
    await work();
    return n;
  } finally {
    spy.mockRestore();
  }
}

describe("the copy in KV", () => {
  it("is not believed if it is older than what was seen, and is replaced", async () => {
    const before = await env.CONFIG.get("hpke");
    const { config: made } = await admin("POST", "hpke_keys", { force: true });
    expect(await listed()).toContain(made.id);
    const after = await env.CONFIG.get("hpke");
    expect(after).not.toBe(before);
    await env.CONFIG.put("hpke", before);
    pass(61);
    expect(await listed()).toContain(made.id);
    expect(await env.CONFIG.get("hpke")).toBe(after);
  });

  it("is the newest in the end, in whatever order writes arrive", async () => {
    const all = [];
    let release;
    const held = new Promise((resolve) => (release = resolve));
    await withPuts(
      async (put, n) => {
        if (n === 0) await held;
        return put();
      },
      async () => {
        all.push(admin("POST", "hpke_keys", { force: true }));
        await eventually(async () => expect((await select(config(), "SELECT * FROM hpke")).length).toBeGreaterThan(0));
        const { config: last } = await admin("POST", "hpke_keys", { force: true });
        expect((await copied())).toContain(`${last.id} active`);
        release();
        await Promise.all(all);
        expect((await copied())).toContain(`${last.id} active`);
      },
    );
  });

  it("is written again when KV refuses, as it does a second write within a second", async () => {
    let id;
    const puts = await withPuts(
      (put, n) => (n === 0 ? Promise.reject(new Error("KV PUT failed: 429 Too Many Requests")) : put()),
      async () => (id = (await admin("POST", "hpke_keys", { force: true })).config.id),
    );
    expect(await copied()).toContain(`${id} active`);
    expect(puts).toBe(2);
  });
});

describe("the alarm", () => {
  it("purges tasks although keys fail, changes keys although purges fail, and tries both again", async () => {
    await admin("PUT", "hpke_policy", { policy, force: true });
    const task = await admin("POST", "tasks", spec);
    expect((await send("DELETE", `/admin/tasks/${task.task_id}?purge_after=3600`, undefined, operator)).status).toBe(204);
    const purges = () => select(config(), "SELECT hex(at) AS at FROM purge");
    const [before] = await purges();
    await select(config(), "UPDATE setting SET v = CAST('x' || v AS BLOB) WHERE name = 'keys'");
    pass(HOUR);
    await runDurableObjectAlarm(config());
    const [after] = await purges();
    expect(after, "it comes once more, later").not.toEqual(before);
    expect(await due()).toBe(300);

    // The other way round: the purge that is to come once more is broken, and a key is due.
    await select(config(), "UPDATE setting SET v = CAST(substr(v, 2) AS BLOB) WHERE name = 'keys'");
    await select(config(), "UPDATE purge SET v = CAST('x' || v AS BLOB)");
    pass(28 * DAY - HOUR);
    await runDurableObjectAlarm(config());
    expect((await ids()).pending).toHaveLength(1);
    expect(await due()).toBe(300);

    await select(config(), "UPDATE purge SET v = CAST(substr(v, 2) AS BLOB)");
    pass(300);
    await runDurableObjectAlarm(config());
    expect(await purges()).toEqual([]);
    await admin("PUT", "hpke_policy", { policy: null });
  });
});
