// The command lines of those subcommands of scripts/bench that are run by Node. `scripts/bench --help` describes them.

import { parseArgs } from "node:util";

/** As `parseArgs`, but what it does not take ends the process with one sentence. */
export function readOptions(config) {
  try {
    return parseArgs(config);
  } catch (error) {
    return wrongUsage(`${error.message.split(". ")[0]}; scripts/bench --help lists the options.`);
  }
}

/** Ends the process with a sentence, as all of scripts/bench does when it is used wrongly. */
export function wrongUsage(why) {
  console.error(`bench: ${why}`);
  process.exit(2);
}
