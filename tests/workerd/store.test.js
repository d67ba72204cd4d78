// AggregateStore and JobStore in workerd: what is written, and what survives eviction and aborts.

import { abortAllDurableObjects, evictDurableObject } from "cloudflare:test";
import { describe, expect, it } from "vitest";

import { Task, base64url, commit, jobId, reportId, share, slice, windows } from "./messages.js";
import { rows, rowsWritten, select, statements } from "./objects.js";

const range = (n) => Array.from({ length: n }, (_, i) => i + 1);
const json = JSON.stringify;

describe("rows", () => {
  it("are one per job and object, never one per report", async () => {
    const task = new Task("rows");
    const jobs = [
      commit(1, [await slice(0, [1])]),
      commit(2, [await slice(0, range(120).map((n) => n + 1)), await slice(1, range(100).map((n) => n + 130))]),
      commit(3, []),
    ];
    for (const job of jobs) expect(await task.commit(job)).toBe(json({ Committed: [] }));
    expect(await rows(task.storeStub())).toEqual({ meta: 1, job_0: 3 });
    // Repeats, replays and reads add none.
    for (const job of jobs) expect(await task.commit(job)).toBe(json({ Committed: [] }));
    expect(await task.commit(commit(4, [await slice(5, [1])]))).toBe(json({ Replayed: [reportId(1)] }));
    expect(JSON.parse(await task.gather(windows(0, 2))).Gathered.report_count).toBe(221);
    expect(await rows(task.storeStub())).toEqual({ meta: 1, job_0: 3 });
  });

  it("are written once for a commit, and not for what only repeats or asks", async () => {
    const task = new Task("billed");
    const stub = task.storeStub();
    await task.commit(commit(1, [await slice(0, [1, 2])]));
    const big = commit(2, [await slice(0, range(100).map((n) => n + 10)), await slice(3, range(100).map((n) => n + 110))]);
    expect(rowsWritten(await statements(stub, () => task.commit(big)))).toBe(1);
    expect(rowsWritten(await statements(stub, () => task.commit(big)))).toBe(0);
    const replay = commit(3, [await slice(0, [2])]);
    expect(rowsWritten(await statements(stub, () => task.commit(replay)))).toBe(0);
    expect(rowsWritten(await statements(stub, () => task.store({ KnowsJob: jobId(2) })))).toBe(0);
    expect(rowsWritten(await statements(stub, () => task.gather(windows(0, 1))))).toBe(0);
  });

  it("of shares too large for one are few, and give the shares back", async () => {
    const task = new Task("chunks");
    const large = { ...(await slice(0, [1])), share: base64url(new Uint8Array(2_000_000)) };
    expect(await task.commit(commit(1, [large]))).toBe(json({ Committed: [] }));
    expect(await rows(task.storeStub())).toEqual({ meta: 1, job_0: 1, chunk_0: 2 });
    await evictDurableObject(task.storeStub());
    expect(JSON.parse(await task.gather(windows(0, 1))).Gathered.share).toBe(large.share);
  });

  it("of a claimed job id are one", async () => {
    const task = new Task("claims");
    const claim = (digest) => task.job({ Claim: { job: jobId(1), digest: Array(32).fill(digest) } });
    expect(await claim(1)).toBe(json("Claimed"));
    await evictDurableObject(task.jobStub());
    expect(await claim(1)).toBe(json("Claimed"));
    expect(await claim(2)).toBe(json("Conflict"));
    expect(await task.job({ Knows: jobId(1) })).toBe(json({ Known: true }));
    expect(await rows(task.jobStub())).toEqual({ claim: 1 });
    expect(await select(task.jobStub(), "SELECT hex(digest) AS digest FROM claim")).toEqual([{ digest: "01".repeat(32) }]);
  });
});

// An eviction is graceful and happens to every idle object; an abort is what a crash or a deploy does.
describe.each([
  ["evicted", (task) => evictDurableObject(task.storeStub())],
  ["aborted", () => abortAllDurableObjects()],
])("a store that was %s", (how, forget) => {
  it("repeats its answers byte for byte and knows its reports", async () => {
    const task = new Task(`forget ${how}`);
    const first = { ...commit(1, [await slice(0, [1, 2]), await slice(4, [3])]), refused: [[reportId(9), "ReportTooEarly"]] };
    const answer = await task.commit(first);
    expect(answer).toBe(json({ Committed: [[reportId(9), "ReportTooEarly"]] }));
    await forget(task);
    expect(await task.commit(first)).toBe(answer);
    await forget(task);
    expect(await task.commit({ ...first, digest: Array(32).fill(99) })).toBe(json("Conflict"));
    await forget(task);
    // The replay index is gone with the memory, the protection is not: even in another bucket.
    const replay = commit(2, [await slice(7, [3, 20, 1])]);
    expect(await task.commit(replay)).toBe(json({ Replayed: [reportId(1), reportId(3)] }));
    await forget(task);
    expect(await task.commit(commit(2, [await slice(7, [9, 20])]))).toBe(json({ Committed: [] }));
    const content = JSON.parse(await task.gather(windows(0, 8))).Gathered;
    expect([content.report_count, content.share]).toEqual([5, share(1 + 2 + 3 + 9 + 20)]);
  });

  it("is as frozen and as sealed as before", async () => {
    const task = new Task(`hold ${how}`);
    await task.commit(commit(1, [await slice(0, [1])]));
    const late = commit(2, [await slice(0, [5])]);
    expect(await task.freeze(1, windows(0, 1))).toBe(json("Frozen"));
    await forget(task);
    expect(await task.commit(late)).toBe(json({ Busy: 1 }));
    expect(await task.store({ Thaw: { attempt: 1 } })).toBe(json("Done"));
    await forget(task);
    expect(await task.freeze(1, windows(0, 1))).toBe(json("Stale"));
    expect(await task.freeze(2, windows(0, 1))).toBe(json("Frozen"));
    await task.store({ Seal: { attempt: 2, range: windows(0, 1), param: [], exclude: [] } });
    await forget(task);
    expect(await task.commit(late)).toBe(json({ Collected: [reportId(5)] }));
    expect(await rows(task.storeStub())).toEqual({ meta: 1, job_0: 1, sealed: 1 });
  });

  it("reads its reports once, and then keeps them in memory", async () => {
    const task = new Task(`cache ${how}`);
    await task.commit(commit(1, [await slice(0, [1])]));
    await forget(task);
    const scans = async (n) => {
      const job = commit(n, [await slice(0, [n])]);
      const ran = await statements(task.storeStub(), () => task.commit(job));
      return ran.filter(({ statement }) => /\bids\b.* FROM job_0/.test(statement)).length;
    };
    expect(await scans(2)).toBe(1);
    expect(await scans(3)).toBe(0);
  });
});
