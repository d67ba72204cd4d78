// Writes DAP-09 reports made by `@divviup/dap`, a client written by others from the draft,
// so that tests and measurements do not only show this project agreeing with itself.
//
// Nothing is sent: the client's two HPKE requests are answered in this process from the
// command line. Only the measurements follow `--seed`; report ids, VDAF randomness and
// encapsulated keys come from the system's generator, as they must in a real client.

import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { once } from "node:events";
import { parseArgs } from "node:util";
import { Worker, isMainThread, parentPort, workerData } from "node:worker_threads";
import { fileURLToPath } from "node:url";
import { availableParallelism } from "node:os";

const USAGE = `usage: node scripts/lib/divviup-reports.mjs
  --task-id B64U --vdaf count|sum|histogram|sumvec
  [--bits N] [--length N] [--chunk-length N]    as the VDAF needs
  --leader-hpke-config-list B64U --helper-hpke-config-list B64U
  [--time-precision SECONDS]   default 3600; the client rounds the report time down to it
  [--time SECONDS]             report time since the Unix epoch, default now
  [--time-span SECONDS]        spread report times evenly over [time, time + span), default 0
  [--count N] [--seed S] [--threads N] [--out FILE]   defaults 1, "0", all cores up to 2, stdout

Writes JSON Lines: {"report": base64url of the encoded Report, "measurement": number or array}.`;

const CHUNK = 50; // reports per message from a thread: large enough to keep postMessage cheap

class UsageError extends Error {}

function readOptions(argv) {
  let values;
  try {
    ({ values } = parseArgs({
      args: argv,
      options: {
        "task-id": { type: "string" },
        vdaf: { type: "string" },
        bits: { type: "string" },
        length: { type: "string" },
        "chunk-length": { type: "string" },
        "time-precision": { type: "string", default: "3600" },
        "leader-hpke-config-list": { type: "string" },
        "helper-hpke-config-list": { type: "string" },
        time: { type: "string", default: String(Math.floor(Date.now() / 1000)) },
        "time-span": { type: "string", default: "0" },
        count: { type: "string", default: "1" },
        seed: { type: "string", default: "0" },
        threads: { type: "string", default: String(Math.min(2, availableParallelism())) },
        out: { type: "string", default: "-" },
        help: { type: "boolean", default: false },
      },
    }));
  } catch (error) {
    throw new UsageError(error.message);
  }
  if (values.help) return null;

  const text = (name) => {
    if (!values[name]) throw new UsageError(`--${name} is required`);
    return values[name];
  };
  const integer = (name, min) => {
    const raw = text(name);
    const n = Number(raw);
    if (!Number.isSafeInteger(n) || n < min) {
      throw new UsageError(`--${name} must be an integer of at least ${min}, not "${raw}"`);
    }
    return n;
  };
  const bytes = (name) => {
    const raw = text(name).replace(/=+$/, "");
    if (!/^[A-Za-z0-9_-]+$/.test(raw)) throw new UsageError(`--${name} is not base64url`);
    return Buffer.from(raw, "base64url");
  };

  const taskId = bytes("task-id");
  if (taskId.length !== 32) throw new UsageError(`--task-id is ${taskId.length} bytes long, not 32`);

  let spec;
  switch (text("vdaf")) {
    case "count":
      spec = { type: "count" };
      break;
    case "sum":
      spec = { type: "sum", bits: integer("bits", 1) };
      break;
    case "histogram":
      spec = { type: "histogram", length: integer("length", 1), chunkLength: integer("chunk-length", 1) };
      break;
    case "sumvec":
      spec = {
        type: "sumVec",
        length: integer("length", 1),
        bits: integer("bits", 1),
        chunkLength: integer("chunk-length", 1),
      };
      break;
    default:
      throw new UsageError(`--vdaf "${values.vdaf}" is not count, sum, histogram or sumvec`);
  }
  if (spec.bits > 53) throw new UsageError("--bits above 53 does not fit a JSON number");

  return {
    taskId: taskId.toString("base64url"),
    spec,
    timePrecision: integer("time-precision", 1),
    leaderConfigs: bytes("leader-hpke-config-list"),
    helperConfigs: bytes("helper-hpke-config-list"),
    time: integer("time", 0),
    timeSpan: integer("time-span", 0),
    count: integer("count", 1),
    seed: values.seed,
    threads: integer("threads", 1),
    out: values.out,
  };
}

// A stream of bits from SHA-256 in counter mode. Keyed with the report's index as well as the
// seed, so that a report's measurement does not depend on how the work is split over threads.
class SeededBits {
  constructor(seed, index) {
    this.prefix = `${seed}\0${index}\0`;
    this.block = Buffer.alloc(0);
    this.used = 0;
    this.blocks = 0;
  }

  byte() {
    if (this.used === this.block.length) {
      this.block = createHash("sha256").update(`${this.prefix}${this.blocks++}`).digest();
      this.used = 0;
    }
    return this.block[this.used++];
  }

  /** A uniform integer in `[0, 2^bits)`, at most 53 bits. */
  bits(bits) {
    let value = 0;
    for (let left = bits; left > 0; left -= 8) {
      const take = Math.min(8, left);
      value = value * 2 ** take + (this.byte() >> (8 - take));
    }
    return value;
  }

  /** An integer in `[0, bound)`; the bias of the modulus, below 2^-16, is of no matter here. */
  below(bound) {
    return this.bits(48) % bound;
  }
}

function measurement(spec, seed, index) {
  const random = new SeededBits(seed, index);
  switch (spec.type) {
    case "count":
      return random.bits(1);
    case "sum":
      return random.bits(spec.bits);
    case "histogram":
      return random.below(spec.length);
    case "sumVec":
      return Array.from({ length: spec.length }, () => random.bits(spec.bits));
  }
}

async function prepareTask(options) {
  const { Task } = await import("@divviup/dap");
  // The names only tell the two requests apart; `.invalid` can never be resolved by mistake.
  const answers = new Map([
    ["leader.invalid", options.leaderConfigs],
    ["helper.invalid", options.helperConfigs],
  ]);
  const task = new Task({
    id: options.taskId,
    leader: "https://leader.invalid/",
    helper: "https://helper.invalid/",
    timePrecisionSeconds: options.timePrecision,
    ...options.spec,
  });
  task.fetch = async (url) =>
    new Response(answers.get(new URL(url).hostname), {
      headers: { "content-type": "application/dap-hpke-config-list" },
    });
  try {
    await task.fetchKeyConfiguration();
  } catch (error) {
    throw new UsageError(`the client refused an HPKE config list: ${error.message}`);
  }
  return task;
}

async function makeReport(task, options, index) {
  const value = measurement(options.spec, options.seed, index);
  const seconds = options.time + Math.floor((options.timeSpan * index) / options.count);
  // Count is the one VDAF whose client takes a boolean; the aggregate counts, so a number is written.
  const input = options.spec.type === "count" ? value === 1 : value;
  const report = await task.generateReport(input, { timestamp: new Date(seconds * 1000) });
  return `${JSON.stringify({ report: report.encode().toString("base64url"), measurement: value })}\n`;
}

/** Makes reports `first..last` and hands them on in order, `CHUNK` at a time. */
async function makeReports(options, first, last, emit) {
  const task = await prepareTask(options);
  let lines = [];
  for (let index = first; index < last; index++) {
    lines.push(await makeReport(task, options, index));
    if (lines.length === CHUNK || index === last - 1) {
      await emit(lines);
      lines = [];
    }
  }
}

async function main() {
  const options = readOptions(process.argv.slice(2));
  if (options === null) {
    console.log(USAGE);
    return;
  }
  const out = options.out === "-" ? process.stdout : createWriteStream(options.out);
  const failed = new Promise((_, reject) => out.on("error", reject));
  const started = performance.now();
  let nextNote = started + 3000;
  let done = 0;

  const write = async (lines) => {
    if (!out.write(lines.join(""))) await Promise.race([once(out, "drain"), failed]);
    done += lines.length;
    const now = performance.now();
    if (now >= nextNote && done < options.count) {
      nextNote = now + 3000;
      const left = ((now - started) / done) * (options.count - done);
      console.error(`${done} of ${options.count} reports, about ${Math.ceil(left / 1000)} s left`);
    }
  };

  const threads = Math.min(options.threads, Math.ceil(options.count / CHUNK));
  if (threads === 1) {
    await makeReports(options, 0, options.count, write);
  } else {
    // One contiguous range each. Threads finish out of step, so lines of different ranges may
    // interleave; each line stands alone and no reader depends on their order.
    const range = Math.ceil(options.count / threads);
    await Promise.all(
      Array.from({ length: threads }, (_, i) => {
        const first = i * range;
        const last = Math.min(options.count, first + range);
        if (first >= last) return undefined;
        return new Promise((resolve, reject) => {
          const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { options, first, last } });
          let writing = Promise.resolve();
          worker.on("message", (lines) => {
            writing = writing.then(() => write(lines)).then(() => worker.postMessage("written"));
            writing.catch(reject);
          });
          worker.on("error", reject);
          worker.on("exit", (code) => {
            if (code === 0) writing.then(resolve, reject);
            else reject(new Error(`a report thread ended with code ${code}`));
          });
        });
      }),
    );
  }

  if (out !== process.stdout) {
    out.end();
    await Promise.race([once(out, "close"), failed]);
  }
  const ms = performance.now() - started;
  console.error(
    `${options.count} ${options.spec.type} reports in ${(ms / 1000).toFixed(1)} s, ` +
      `${(ms / options.count).toFixed(2)} ms each on ${threads} thread${threads === 1 ? "" : "s"}`,
  );
}

if (isMainThread) {
  main().catch((error) => {
    console.error(`divviup-reports: ${error.message}`);
    if (error instanceof UsageError) console.error(USAGE.split("\n\n")[0]);
    process.exit(1);
  });
} else {
  const { options, first, last } = workerData;
  // The structured clone turns a Buffer into a plain Uint8Array, which is all that is needed here.
  await makeReports(options, first, last, async (lines) => {
    parentPort.postMessage(lines);
    await once(parentPort, "message"); // one chunk under way: the main thread sets the pace
  });
  parentPort.close();
}
