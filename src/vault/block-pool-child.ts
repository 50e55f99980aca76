// A thread of BlockPool: does one job after the other.

import { parentPort } from "node:worker_threads";
import type { BlockThreadJob } from "./block-pool.ts";
import { fillPack } from "./fill-pack.ts";
import { openEntries } from "./open-entries.ts";
import { changeBlocks } from "./patch-work.ts";

parentPort?.on("message", (job: BlockThreadJob) => parentPort?.postMessage(answerOf(job)));

function answerOf(job: BlockThreadJob): unknown {
  switch (job.kind) {
    case "fill":
      return fillPack(job.fill);
    case "patch":
      return changeBlocks(job.batch);
    case "open":
      return openEntries(job.open);
  }
}
