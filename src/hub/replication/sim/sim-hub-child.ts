// For tests: a hub in a process of its own that kills or pauses itself, or whose clock jumps, at the n-th moment of its jobs. Argument: options as JSON.

import { join } from "node:path";
import { systemClock } from "../../../base/clock.ts";
import { silentLog } from "../../../base/log.ts";
import { openDatabase, type DatabaseAddress } from "../../db/database.ts";
import { openSimHub } from "./sim-hub.ts";
import { simImages } from "./sim-images.ts";

export interface ChildOptions {
  readonly address: DatabaseAddress;
  readonly folder: string;
  /** The moment, from 1, at which it is struck; 0: never. */
  readonly strikeAt: number;
  /** What it does to itself then: end, stand still, or find its clock set ahead by that much. */
  readonly strike: "SIGKILL" | "SIGSTOP" | { readonly clockMs: number };
}

const { address, folder, strikeAt, strike } = JSON.parse(process.argv[2] ?? "") as ChildOptions; // Given by the test.
await using database = await openDatabase({ address, log: silentLog, clock: systemClock });
let count = 0;
let aheadMs = 0;
const clock = { ...systemClock, nowMs: () => systemClock.nowMs() + aheadMs };
let isStarted = false;
const onMoment = (moment: string): void => {
  if (!isStarted) return; // What a start does is the same in every hub.
  count += 1;
  process.stdout.write(`moment ${moment}\n`);
  if (count !== strikeAt) return;
  if (typeof strike === "string") process.kill(process.pid, strike);
  else aheadMs = strike.clockMs;
};
const jobs = { leaseMs: 700, pollMs: 20, onMoment };
const images = simImages(join(folder, "out"), onMoment);
await using _hub = await openSimHub({ database, folder, limits: { probeSeconds: 1 }, jobs, images, clock, onCall: onMoment });
isStarted = true;
process.stdout.write("ready\n");
await new Promise<void>((resolve) => process.once("SIGTERM", () => resolve()));
