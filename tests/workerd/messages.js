// Messages to Durable Objects as JSON, sent over the test routes, and the objects behind them.
//
// As in the core's conformance suite: report number n has the id n, n, .. and adds n to the share;
// batch buckets are 100 seconds long.

import { env, exports } from "cloudflare:workers";

export const PRECISION = 100;

export const base64url = (bytes) => new Uint8Array(bytes).toBase64({ alphabet: "base64url", omitPadding: true });
const filled = (length, n) => new Uint8Array(length).fill(n);
const sha256 = async (bytes) => new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));

/** An unsigned integer as 8 bytes. */
function u64(n, littleEndian) {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(n), littleEndian);
  return bytes;
}

export const jobId = (n) => base64url(filled(16, n));
export const reportId = (n) => base64url(filled(16, n));
/** An encoded share of one element of Field64. */
export const share = (n) => base64url(u64(n, true));
export const window = (n) => ({ Window: n * PRECISION });
export const windows = (n, count) => ({ Windows: { start: n * PRECISION, duration: count * PRECISION } });

/** XOR of SHA-256 of the reports' ids. */
export async function checksum(reports) {
  const sum = filled(32, 0);
  for (const n of reports) (await sha256(filled(16, n))).forEach((byte, i) => (sum[i] ^= byte));
  return [...sum];
}

/** What a job adds to the n-th bucket. */
export async function slice(n, reports) {
  return {
    bucket: window(n),
    ids: base64url(reports.flatMap((report) => [...filled(16, report)])),
    checksum: await checksum(reports),
    min_time: n * PRECISION,
    max_time: n * PRECISION,
    share: share(reports.reduce((a, b) => a + b, 0)),
  };
}

/** A commit of one job, bound to the digest that its number stands for. */
export const commit = (n, slices) => ({
  job: jobId(n),
  digest: [...filled(32, n)],
  param: [],
  slices,
  refused: [],
  unrecorded: [],
  open: [],
  readmit: [],
  once: false,
});

/** The answer to a commit of reports that jobs of an open fate hold: pairs of report and job. */
export const soft = (...pairs) =>
  JSON.stringify({ Replayed: { soft: pairs.map(([report, job]) => [reportId(report), jobId(job)]), hard: [] } });
/** The same for reports that count for good. */
export const hard = (...reports) => JSON.stringify({ Replayed: { soft: [], hard: reports.map(reportId) } });

/** Sends a request to the Worker; the whole answer is read, as eviction waits for answers. */
export async function send(method, path, body, headers) {
  const init = { method, headers, body: body === undefined ? undefined : JSON.stringify(body) };
  const response = await exports.default.fetch(`https://worker.test${path}`, init);
  return { status: response.status, text: await response.text() };
}

async function ask(kind, body) {
  const { status, text } = await send("POST", `/internal/test/${kind}`, body);
  if (status !== 200) throw new Error(`/internal/test/${kind} answered ${status}: ${text}`);
  return text;
}

/** Has calls to objects fail, by their number from now on; of one task's objects, or all. */
export const plan = (calls = {}, to = "") => send("POST", "/internal/test/faults", { calls, to });
/** The calls since the last plan. */
export const calls = async () => JSON.parse((await send("GET", "/internal/test/faults")).text);

/** A task of its own, and short ways to speak to its objects. Answers are the JSON text. */
export class Task {
  constructor(name, { shards = 1, bucketsPerGroup = 0 } = {}) {
    const id = filled(32, 0);
    new TextEncoder().encodeInto(name, id);
    this.placement = {
      task_id: base64url(id),
      batch_mode: "time-interval",
      time_precision: PRECISION,
      shards,
      buckets_per_group: bucketsPerGroup,
      shard_key_version: 1,
      retention: 2 ** 40, // the reports of these tests are all from 1970
    };
  }

  storeStub = (shard = 0, group = "-") => this.#stub(env.AGGREGATE_STORE, `${group}/${shard}`);
  ledgerStub = () => this.#stub(env.TASK_LEDGER, "ledger");
  jobStub = () => this.#stub(env.JOB_STORE, "jobs/0");
  #stub = (namespace, name) => namespace.get(namespace.idFromName(`v1/${this.placement.task_id}/${name}`));

  store(action, shard = 0) {
    const store = { group: "Whole", shard };
    return ask("store", { store, request: { placement: this.placement, store, field: "F64", action } });
  }

  /** Has calls to this task's objects fail, and counts no others: their alarms may ring meanwhile. */
  plan = (calls) => plan(calls, this.placement.task_id);

  commit = (commit, shard) => this.store({ Commit: commit }, shard);
  gather = (range) => this.store({ Gather: { range, param: [], exclude: [] } });

  /** Freezes a range as gathered just before. */
  async freeze(attempt, range) {
    const { content } = JSON.parse(await this.gather(range)).Gathered;
    const share = Uint8Array.fromBase64(content.share, { alphabet: "base64url" });
    const version = [...u64(content.report_count, false), ...content.checksum, ...share];
    const digest = [...(await sha256(new Uint8Array(version)))];
    return this.store({ Freeze: { attempt, range, counts: range, param: [], exclude: [], version: digest } });
  }

  ledger = (request) => ask("ledger", { task: this.placement.task_id, request });
  job = (request) => ask("job", { placement: this.placement, shard: 0, request });

  /** A leader's request to collect these reports; `n` stands for its bytes. */
  async collection(n, range, reports) {
    const publicKey = [9, ...filled(31, 0)]; // any valid X25519 key
    return {
      Collect: {
        digest: [...filled(32, n)],
        placement: this.placement,
        field: "F64",
        range,
        counts: range,
        once: false,
        param: [],
        report_count: reports.length,
        checksum: await checksum(reports),
        min_batch_size: 2,
        max_batch_size: null,
        max_batch_query_count: 1,
        collector_hpke_config: base64url([9, 0, 0x20, 0, 1, 0, 1, 0, 32, ...publicKey]),
        hpke_info: base64url([1]),
        hpke_aad: base64url([n]),
      },
    };
  }
}

/** What an operator sends to create a task whose verify key is made of this byte. */
export function taskSpec(verifyKeyByte) {
  return {
    version: "dap-09",
    role: "helper",
    batch_mode: "leader-selected",
    vdaf: "Prio3Count",
    verify_key: base64url(filled(16, verifyKeyByte)),
    leader_token: "a-token-of-the-leader",
    collector_hpke_config: {
      id: 1,
      kem_id: "X25519HkdfSha256",
      kdf_id: "HkdfSha256",
      aead_id: "Aes128Gcm",
      public_key: base64url([9, ...filled(31, 0)]),
    },
    min_batch_size: 2,
    time_precision: 100,
  };
}
