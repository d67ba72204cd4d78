// Searches what a run of the end-to-end tests said (logs, refusals, metrics) for every secret that it used.

import { readFileSync, readdirSync } from "node:fs";
import path from "node:path";

const folder = process.argv[2];
const files = readdirSync(folder).map((name) => ({ name, text: readFileSync(path.join(folder, name), "latin1") }));

/** Secrets by the first characters of each form in which they could be written. */
const PREFIX = 16;
const forms = new Map();
const add = (form) => forms.set(form.slice(0, PREFIX), [...(forms.get(form.slice(0, PREFIX)) ?? []), form]);
const secrets = new Set(
  files
    .filter(({ name }) => name.startsWith("secrets-"))
    .flatMap(({ text }) => text.match(/[A-Za-z0-9_-]{16,}/g) ?? []),
);
for (const secret of secrets) {
  const bytes = Buffer.from(secret, "base64url");
  const written = [secret, bytes.toString("base64").replaceAll("=", ""), bytes.toString("hex"), bytes.toString("hex").toUpperCase()];
  new Set(written).forEach(add);
}

const heard = files.filter(({ name }) => !name.startsWith("secrets-"));
const logs = heard.filter(({ name }) => name.startsWith("log-"));
const found = [];
let bytes = 0;
for (const { name, text } of heard) {
  bytes += text.length;
  for (const { 0: run, index } of text.matchAll(/[A-Za-z0-9_+/-]{16,}/g)) {
    for (let i = 0; i + PREFIX <= run.length; i++) {
      for (const form of forms.get(run.slice(i, i + PREFIX)) ?? []) {
        // Never the secret itself: this is a log, too.
        if (run.startsWith(form, i)) found.push(`${name} at ${index + i}, after "${text.slice(Math.max(0, index + i - 40), index + i)}"`);
      }
    }
  }
}
if (secrets.size < 100 || logs.length < 10 || bytes < 100_000) {
  console.error(`heard: too little to say anything: ${secrets.size} secrets, ${logs.length} logs, ${bytes} bytes.`);
  process.exit(1);
}
if (found.length > 0) {
  console.error(`heard: ${found.length} secrets were said; the first:\n${found.slice(0, 10).join("\n")}`);
  process.exit(1);
}
console.log(`SECRETS KEPT: none of ${secrets.size} is in ${logs.length} logs or any refusal or metric (${Math.round(bytes / 1024)} KiB)`);
