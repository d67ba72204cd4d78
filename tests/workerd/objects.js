// What objects hold and do, seen from inside them.

import { runInDurableObject } from "cloudflare:test";
import { vi } from "vitest";

/** Number of rows by table, for tables that have some. */
export const rows = (stub) =>
  runInDurableObject(stub, (_, state) => {
    const { sql } = state.storage;
    const names = sql.exec("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf%' ESCAPE '\\'");
    const counts = {};
    for (const { name } of [...names]) {
      const { n } = sql.exec(`SELECT count(*) AS n FROM ${name}`).one();
      if (n > 0) counts[name] = n;
    }
    return counts;
  });

export const select = (stub, statement) =>
  runInDurableObject(stub, (_, state) => [...state.storage.sql.exec(statement)]);

/** Waits until `work` throws no more: what happens by itself takes longer on a busy machine. */
export const eventually = (work) => vi.waitFor(work, { timeout: 20_000 });

export const alarm = (stub) => runInDurableObject(stub, (_, state) => state.storage.getAlarm());

/**
 * Statements that the object runs during `work`, each with the rows it wrote, which are what is billed. Not those of other
 * objects: their alarms may ring at any time.
 */
export async function statements(stub, work) {
  const sql = await runInDurableObject(stub, (_, state) => state.storage.sql);
  const prototype = Object.getPrototypeOf(sql);
  const real = prototype.exec;
  const ran = [];
  const spy = vi.spyOn(prototype, "exec").mockImplementation(function (statement, ...values) {
    const cursor = real.call(this, statement, ...values);
    if (this === sql) ran.push({ statement, cursor });
    return cursor;
  });
  try {
    await work();
    return ran.map(({ statement, cursor }) => ({ statement, rowsWritten: cursor.rowsWritten }));
  } finally {
    spy.mockRestore();
  }
}

export const rowsWritten = (ran) => ran.reduce((n, { rowsWritten }) => n + rowsWritten, 0);
