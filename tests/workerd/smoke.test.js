import { env, exports } from "cloudflare:workers";
import { expect, it } from "vitest";

it("answers on /healthz", async () => {
  const response = await exports.default.fetch("https://worker.test/healthz");
  expect(response.status).toBe(200);
});

it("has the four Durable Object classes and the configuration cache", () => {
  for (const binding of ["AGGREGATE_STORE", "TASK_LEDGER", "JOB_STORE", "CONFIG_STORE", "CONFIG"]) {
    expect(env[binding], binding).toBeDefined();
  }
});
