import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

// The same for every run, so that a failure can be repeated; they protect nothing.
const SECRETS = {
  ROOT_KEYS: `1=${Buffer.alloc(32, 1).toString("base64url")}`,
  ADMIN_TOKENS: Buffer.alloc(16, 2).toString("base64url"),
};

export default defineConfig({
  // The Worker logs each request, and some tests panic on purpose: of use only where a test fails.
  test: {
    // Machines may be busy; a hang takes longer.
    testTimeout: 30_000,
    hookTimeout: 60_000, silent: "passed-only" },
  plugins: [
    cloudflareTest({
      // The build with test routes, `scripts/build --test`. Everything else, bindings, classes and
      // dates, is what gets deployed.
      main: "../../build-test/index.js",
      wrangler: { configPath: "../../wrangler.toml" },
      // Over those of a .dev.vars beside wrangler.toml, which differ on every machine.
      miniflare: { bindings: SECRETS },
    }),
  ],
});
