// AggregateStore and JobStore in workerd: what is written, and what survives eviction and aborts.

import { abortAllDurableObjects, evictDurableObject, runDurableObjectAlarm } from "cloudflare:test";
import { describe, expect, it } from "vitest";

import { Task, base64url, commit, hard, jobId, reportId, share, slice, soft, windows } from "./messages.js";
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
    expect(await task.commit(commit(4, [await slice(5, [1])]))).toBe(soft([1, 1]));
    expect(JSON.parse(await task.gather(windows(0, 2))).Gathered.content.report_count).toBe(221);
    expect(await rows(task.storeStub())).toEqual({ meta: 1, job_0: 3 });
  });

  it("are written once for a commit, and not for what only repeats or asks", async () => {
    const task = new Task("billed");
    const stub = task.storeStub();
    await task.commit(commit(1, [await slice(0, [1, 2])]));
    const big = commit(2, [await slice(0, range(100).map((n) => n + 10)), await slice(3, range(100).map((n) => n + 110))]);
    expect(rowsWritten(await statements(stub, () => task.commit(big)))).toBe(1);
    expect(rowsWritten(await statements(stub, () => task.commit(big)))).toBe(0);
    // What became of its reports is counted in the same row, and being asked for it costs none.
    const refused = [[reportId(250), "ReportTooEarly"]];
    const unrecorded = [[{ UnknownKey: 7 }, 3], ["Proof", 1]];
    const mixed = { ...commit(4, [await slice(0, [240])]), refused, unrecorded };
    expect(rowsWritten(await statements(stub, () => task.commit(mixed)))).toBe(1);
    expect(rowsWritten(await statements(stub, () => task.commit(mixed)))).toBe(0);
    const totals = async () => JSON.parse(await task.store({ Totals: { batches: true } })).Totals.totals;
    const counted = { accepted: 203, failures: [["TooEarly", 1], [{ UnknownKey: null }, 3], ["Proof", 1]] };
    expect(rowsWritten(await statements(stub, totals))).toBe(0);
    expect(await totals()).toMatchObject(counted);
    await evictDurableObject(stub);
    expect(await totals()).toMatchObject(counted);
    // Another object, whose alarm may ring meanwhile, is not what is counted here.
    const other = new Task("not billed");
    const besides = () => other.commit(commit(1, [])).then(() => task.store({ KnowsJob: jobId(2) }));
    const ran = await statements(stub, besides);
    expect([ran.length > 0, rowsWritten(ran)]).toEqual([true, 0]);
    expect(rowsWritten(await statements(other.storeStub(), besides))).toBe(0);
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
    expect(JSON.parse(await task.gather(windows(0, 1))).Gathered.content.share).toBe(large.share);
  });

  it("of reports that begin are one each time, and none for what began", async () => {
    const task = new Task("begun");
    // After an abort the old stub is broken.
    const written = async (work) => rowsWritten(await statements(task.storeStub(), work));
    const begin = (...reports) => {
      const all = reports.map(([n, verified]) => [reportId(n), Array(32).fill(verified)]);
      return task.store({ Begin: { level: 3, reports: all, open: [] } });
    };
    const begun = (...refused) => json({ Begun: refused.map(reportId) });
    expect(await begin([1, 7], [2, 7])).toBe(begun());
    expect(await rows(task.storeStub())).toEqual({ meta: 1, chunk_0: 1 });
    const many = range(200).map((n) => [n, 7]);
    expect(await written(() => begin(...many))).toBe(1);
    for (const forget of [() => {}, () => evictDurableObject(task.storeStub()), () => abortAllDurableObjects()]) {
      await forget();
      expect(await written(() => begin(...many))).toBe(0);
      expect(await written(() => begin([5, 8]))).toBe(0);
      expect(await begin([1, 7], [2, 8], [200, 8])).toBe(begun(2, 200));
    }
    // A job of theirs writes its own row.
    expect(await written(async () => task.commit(commit(1, [await slice(0, [1, 2])])))).toBe(1);
    expect(await rows(task.storeStub())).toEqual({ meta: 1, job_0: 1, chunk_0: 2 });
  });

  it("of a claimed job id are one", async () => {
    const task = new Task("claims");
    const claim = (digest, unasked = []) => {
      const { placement } = task;
      return task.job({ Claim: { placement, job: jobId(1), digest: Array(32).fill(digest), unasked } });
    };
    const unasked = [[reportId(7), "ReportTooEarly"]];
    expect(await claim(1, unasked)).toBe(json({ Claimed: unasked }));
    await evictDurableObject(task.jobStub());
    expect(await claim(1)).toBe(json({ Claimed: unasked }));
    expect(await claim(2)).toBe(json("Conflict"));
    expect(await task.job({ Knows: jobId(1) })).toBe(json({ Known: true }));
    expect(await rows(task.jobStub())).toEqual({ claim_0: 1, epoch: 1 });
    expect(await select(task.jobStub(), "SELECT hex(digest) AS digest FROM claim_0")).toEqual([{ digest: "01".repeat(32) }]);
  });
});

describe("a full generation", () => {
  it("is flushed to a run of the index, and packed once its batch is collected", async () => {
    const task = new Task("generation");
    const stub = task.storeStub();
    // 2,048 jobs of one report each; report numbers of two bytes.
    const id = (n) => base64url([...new Uint8Array(14), n >> 8, n & 255]);
    const job = async (n) => ({ ...commit(0, [{ ...(await slice(n % 2, [1])), ids: id(n) }]), job: id(n) });
    const last = 2_047;
    for (let n = 0; n < last; n++) await task.commit(await job(n));
    expect(await rows(stub)).toEqual({ meta: 1, job_0: last });
    const written = rowsWritten(await statements(stub, async () => task.commit(await job(last))));
    expect(written, "the job, the meta row, a part of the index, and what describes new tables").toBeLessThan(12);
    await evictDurableObject(stub);
    expect(await task.commit(await job(last))).toBe(json({ Committed: [] }));
    const replay = { ...commit(9, [{ ...(await slice(5, [1])), ids: id(3) }]) };
    expect(await task.commit(replay)).toBe(json({ Replayed: { soft: [[id(3), id(3)]], hard: [] } }));
    const all = JSON.parse(await task.gather(windows(0, 2))).Gathered.content;
    expect([all.report_count, all.share]).toEqual([2_048, share(2_048)]);
    // Half of it is collected: it stays as it is. All of it: it is packed.
    const exclude = [id(8)];
    await task.store({ Seal: { attempt: 1, range: windows(0, 1), counts: windows(0, 1), param: [], exclude } });
    expect(await runDurableObjectAlarm(stub)).toBe(true);
    expect((await rows(stub)).job_0).toBe(2_048);
    await task.store({ Seal: { attempt: 2, range: windows(1, 1), counts: windows(1, 1), param: [], exclude } });
    await evictDurableObject(stub);
    expect(await task.commit(await job(4_000))).toBe(json({ Collected: [id(4_000)] }));
    await runDurableObjectAlarm(stub);
    const { meta, sealed, ...tables } = await rows(stub);
    expect([meta, sealed]).toEqual([1, 2]);
    // One job's reports are free, so it is kept apart.
    expect(Object.values(tables).sort()).toEqual([1, 1, 1, 2]);
    expect(Object.keys(tables).map((name) => name.replace(/\d+/, "")).sort()).toEqual(["job_", "merged_", "packed_", "run_"]);
    const packed = JSON.parse(await task.gather(windows(0, 2))).Gathered.content;
    expect([packed.report_count, packed.share]).toEqual([2_047, share(2_047)]);
    await evictDurableObject(stub);
    expect(await task.commit(await job(7))).toBe(json({ Committed: [] }));
    expect(await task.commit({ ...(await job(7)), digest: Array(32).fill(5) })).toBe(json("Conflict"));
    expect(await task.store({ KnowsJob: id(7) })).toBe(json({ Known: true }));
    expect(await task.commit(replay)).toBe(json({ Replayed: { soft: [], hard: [id(3)] } }));
    const free = { ...commit(9, [{ ...(await slice(5, [1])), ids: id(8) }]) };
    expect(await task.commit(free)).toBe(json({ Committed: [] }));
    const taken = { ...commit(10, [{ ...(await slice(6, [1])), ids: id(8) }]) };
    expect(await task.commit(taken)).toBe(json({ Replayed: { soft: [[id(8), jobId(9)]], hard: [] } }));
  }, 120_000);

  it("takes over what the leader deleted, and gives it to whom the collection says", async () => {
    const task = new Task("readmission");
    await task.commit(commit(1, [await slice(0, [1, 2])]));
    await task.ledger({ Release: { placement: task.placement, job: jobId(1) } });
    const heir = { ...commit(2, [await slice(0, [1, 3])]), readmit: [jobId(1)] };
    expect(rowsWritten(await statements(task.storeStub(), () => task.commit(heir))), "the owner and the heir").toBe(2);
    await evictDurableObject(task.storeStub());
    const request = await task.collection(1, windows(0, 1), [1, 3]);
    expect(await task.ledger(request)).toMatch(/^\{"Share":/);
    await evictDurableObject(task.storeStub());
    expect(await task.commit(commit(3, [await slice(4, [1, 2])]))).toBe(hard(1));
    expect(await task.commit(commit(3, [await slice(4, [2])]))).toBe(json({ Committed: [] }));
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
    expect(await task.commit(replay)).toBe(soft([1, 1], [3, 1]));
    await forget(task);
    expect(await task.commit(commit(2, [await slice(7, [9, 20])]))).toBe(json({ Committed: [] }));
    const content = JSON.parse(await task.gather(windows(0, 8))).Gathered.content;
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
    await task.store({ Seal: { attempt: 2, range: windows(0, 1), counts: windows(0, 1), param: [], exclude: [] } });
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
