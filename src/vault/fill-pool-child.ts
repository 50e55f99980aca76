// A thread of FillPool: does one job after the other.

import { parentPort } from "node:worker_threads";
import { fillPack, type FillJob } from "./fill-pack.ts";

parentPort?.on("message", (job: FillJob) => parentPort?.postMessage(fillPack(job)));
