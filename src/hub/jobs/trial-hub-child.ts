// For tests: a process that runs an engine with the trial job until it is killed. Arguments: the database's address as JSON, the job's kind, the lease.

import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { openDatabase, type DatabaseAddress } from "../db/database.ts";
import { JobEngine } from "./job-engine.ts";
import { defineTrialJob, touchRows } from "./trial-job.ts";

const address = JSON.parse(process.argv[2] ?? "") as DatabaseAddress; // Given by the test beside this file.
const database = await openDatabase({ address, log: silentLog, clock: systemClock });
const world = { touch: touchRows, kill: (): void => void process.kill(process.pid, "SIGKILL") };
const kinds = [defineTrialJob(world, database.db, process.argv[3] ?? "")];
const leaseMs = Number(process.argv[4] ?? 800);
const engine = new JobEngine({ database, kinds, clock: systemClock, random: systemRandom, log: silentLog, leaseMs, pollMs: 50 });
process.stdout.write("ready\n");
await new Promise<void>((resolve) => process.once("SIGTERM", () => resolve()));
await engine[Symbol.asyncDispose]();
await database[Symbol.asyncDispose]();
