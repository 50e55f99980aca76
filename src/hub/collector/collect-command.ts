// `watari hub collect`: asks the hub that runs on this configuration's database what is left over, and to remove it.

import type { Command } from "commander";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { openLog } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import { say } from "../../cli/output.ts";
import { askCollection, readCollection } from "../db/collections.ts";
import { openPlainConnection } from "../db/database.ts";
import { runningDatabase } from "../command-database.ts";
import { defaultConfigFile, readHubConfig } from "../hub-config.ts";

const answerShape = z.object({
  found: z.array(z.object({ kind: z.string(), id: z.string(), reason: z.string(), isRemovable: z.enum(["yes", "no"]) })),
  left: z.array(z.object({ kind: z.string(), id: z.string() })),
});
const waitMsMax = 120_000;
const pollMs = 250;

interface Options {
  readonly config: string;
  readonly apply?: boolean;
  readonly json?: boolean;
}

export function registerCollectCommand(noun: Command): void {
  noun
    .command("collect")
    .description("list what jobs left that nothing counts on; the hub must run")
    .option("--config <file>", "the hub's configuration", defaultConfigFile)
    .option("--apply", "remove it")
    .option("--json", "answer as JSON on stdout")
    .action(async (options: Options) => {
      const { config: file, apply } = options;
      const config = await readHubConfig(file);
      const address = await runningDatabase(config);
      await using connection = openPlainConnection(address, openLog({ program: "hub", level: "warn" }));
      const collectionId = await askCollection(connection.db, apply === true ? "apply" : "look");
      const endMs = systemClock.monotonicMs() + waitMsMax;
      for (;;) {
        const answered = await readCollection(connection.db, collectionId);
        if (answered !== undefined) return tell(answerShape.parse(answered.answer), options);
        if (systemClock.monotonicMs() > endMs)
          throw new Fault("DatabaseUnavailable", "could not collect: no hub of this database answers", {
            action: "start the hub, then call again",
          });
        await systemClock.sleep(pollMs);
      }
    });
}

function tell({ found, left }: z.infer<typeof answerShape>, { apply, json }: Options): void {
  if (json === true) process.stdout.write(`${JSON.stringify({ found, left })}\n`);
  for (const { kind, id, reason } of found) say(`${kind}: ${id} (${reason})`);
  const removed = found.length - left.length;
  say(
    found.length === 0
      ? "nothing is left over"
      : apply === true
        ? `${removed} removed, ${left.length} left`
        : `${found.length} found; --apply removes them`,
  );
}
