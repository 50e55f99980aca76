// Runs a probe inside another network namespace: the order comes on stdin, the outcome goes to stdout.

import { text } from "node:stream/consumers";
import { systemClock } from "../../base/clock.ts";
import { probeHttp, probeOrderShape } from "./http-probe.ts";

const order = probeOrderShape.parse(JSON.parse(await text(process.stdin)));
process.stdout.write(JSON.stringify(await probeHttp(order, systemClock)));
