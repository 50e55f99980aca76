// A program that lands a machine through the Azure target until it is killed; its order comes in on stdin.

import { text } from "node:stream/consumers";
import { openTrial, type AzureTrial } from "./azure-landing-rig.ts";

const trial = JSON.parse(await text(process.stdin)) as AzureTrial; // The test that starts it wrote it.
await using opened = await openTrial(trial);
await opened.target.under({ kind: "job", fence: 1 }).launch(opened.spec);
