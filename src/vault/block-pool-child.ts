// A thread of BlockPool: does one job after the other.

import { parentPort } from "node:worker_threads";
import type { BlockThreadJob } from "./block-pool.ts";
import { changeGranules } from "./change-granules.ts";
import { fillPack, sealEntries } from "./fill-pack.ts";
import { openEntries } from "./open-entries.ts";

parentPort?.on("message", (job: BlockThreadJob) => parentPort?.postMessage(answerOf(job)));

function answerOf(job: BlockThreadJob): unknown {
  switch (job.kind) {
    case "fill":
      return fillPack(job.fill);
    case "seal":
      return sealEntries(job.seal);
    case "change":
      return changeGranules(job.change);
    case "open":
      return openEntries(job.open);
  }
}
