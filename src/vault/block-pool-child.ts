// A thread of BlockPool: does one job after the other.

import { parentPort } from "node:worker_threads";
import type { BlockThreadJob } from "./block-pool.ts";
import { fillPack } from "./fill-pack.ts";
import { changeBlocks } from "./patch-work.ts";

parentPort?.on("message", (job: BlockThreadJob) =>
  parentPort?.postMessage(job.kind === "fill" ? fillPack(job.fill) : changeBlocks(job.batch)),
);
