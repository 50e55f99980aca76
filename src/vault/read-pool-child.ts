// A thread of ReadPool: takes jobs from the ring, and sleeps there when none is left.

import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { assert } from "../base/assert.ts";
import type { ReadMail } from "./read-pool.ts";
import { head, ReadRing, type RingMemory } from "./read-ring.ts";
import { ReadWork } from "./read-work.ts";

/** While there is more to do, the reader is told of so many at once. */
const blocksPerTelling = 4;
/** Files are closed after so long without work. */
const idleMs = 2000;

assert(parentPort !== null, "this program is a thread of another one");
const port = parentPort;
const ring = new ReadRing(workerData as RingMemory); // What read-pool.ts gives to its threads.
const work = new ReadWork(ring.staging);
let mailCount = 0;

/** Blocks that are done and were not told. */
let untold = 0;

while (!ring.isClosed) {
  let number = ring.tryTake();
  if (untold >= blocksPerTelling || number === undefined) tell();
  number ??= ring.take(idleMs);
  if (number === undefined) {
    work.rest();
    takeMail();
    continue;
  }
  // Before a job is pushed, what it names is told.
  if (ring.mailCount !== mailCount) takeMail();
  const job = ring.job(number);
  const blockCount = job[head.blockCount] ?? 1; // The reader may use the job again as soon as it is finished.
  job[head.outcome] = work.run(job, number);
  ring.finish(number);
  untold += blockCount;
}

/** A message costs the reader about as much as the rest of a small read. */
function tell(): void {
  if (untold > 0 && ring.mustTell()) port.postMessage(0);
  untold = 0;
}

function takeMail(): void {
  mailCount = ring.mailCount;
  for (let next = receiveMessageOnPort(port); next !== undefined; next = receiveMessageOnPort(port)) {
    const mail = next.message as ReadMail; // What read-pool.ts posts.
    switch (mail.kind) {
      case "pack":
        work.addPack(mail.file);
        break;
      case "memory":
        work.addMemory(mail.number, mail.memory);
        break;
      case "forget":
        work.removeMemory(mail.number);
        break;
    }
  }
}
