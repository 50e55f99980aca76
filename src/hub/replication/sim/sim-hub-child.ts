// For tests: a hub in a process of its own that kills itself at the n-th call to the outside. Argument: options as JSON.

import { systemClock } from "../../../base/clock.ts";
import { silentLog } from "../../../base/log.ts";
import { openDatabase, type DatabaseAddress } from "../../db/database.ts";
import { openSimHub } from "./sim-hub.ts";

interface ProcessOptions {
  readonly address: DatabaseAddress;
  readonly folder: string;
  readonly killAtCall: number;
}

const { address, folder, killAtCall } = JSON.parse(process.argv[2] ?? "") as ProcessOptions; // Given by the test.
await using database = await openDatabase({ address, log: silentLog, clock: systemClock });
let callCount = 0;
const onCall = (call: string): void => {
  callCount += 1;
  if (callCount !== killAtCall) return;
  process.stdout.write(`killed ${call}\n`);
  process.kill(process.pid, "SIGKILL");
};
const jobs = { leaseMs: 700, pollMs: 20 };
await using _hub = await openSimHub({ database, folder, limits: { probeSeconds: 1 }, jobs, onCall });
process.stdout.write("ready\n");
await new Promise<void>((resolve) => process.once("SIGTERM", () => resolve()));
