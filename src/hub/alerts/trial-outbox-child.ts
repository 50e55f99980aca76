// For tests: a process that works an outbox until it is killed. Arguments: the database's address as JSON, the receiver's port, the moment at which it kills itself.

import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { openDatabase, type DatabaseAddress } from "../db/database.ts";
import { startOutbox } from "./outbox.ts";
import { trialLimits, trialSend } from "./trial-outbox.ts";

const address = JSON.parse(process.argv[2] ?? "") as DatabaseAddress; // Given by the test beside this file.
const database = await openDatabase({ address, log: silentLog, clock: systemClock });
await using _outbox = startOutbox({
  ...{ database, clock: systemClock, random: systemRandom, log: silentLog, limits: { ...trialLimits, leaseMs: 300 } },
  send: trialSend(Number(process.argv[3])),
  onMoment: (moment) => {
    if (moment === process.argv[4]) process.kill(process.pid, "SIGKILL");
  },
});
process.stdout.write("ready\n");
await new Promise<void>((resolve) => process.once("SIGTERM", () => resolve()));
