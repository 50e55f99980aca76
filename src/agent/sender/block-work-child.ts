// A thread of BlockWork for programs that are not one file.

import { parentPort } from "node:worker_threads";
import { serveBlockJobs } from "./block-work.ts";

if (parentPort !== null) serveBlockJobs(parentPort);
