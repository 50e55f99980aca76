// A process of the watchdog's test: freezes one filesystem under a watchdog, says so, and then does nothing more.

import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { KernelRefused, openSystemCalls } from "../kernel/system-calls.ts";
import { armWatchdog } from "./watchdog.ts";

const freezeRequest = 0xc004_5877;
const [path = "", msMax = ""] = process.argv.slice(2);

const calls = openSystemCalls();
await using folder = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
(await armWatchdog([path], { shortWaits: "none" })).begin(Number(msMax));
calls.call("ioctl", folder.fd, freezeRequest, 0);
try {
  calls.call("ioctl", folder.fd, freezeRequest, 0);
} catch (error) {
  // A filesystem that is frozen refuses a second freeze: the proof that the first one holds.
  if (error instanceof KernelRefused && error.errorName === "EBUSY") process.stdout.write("frozen\n");
}
process.stdin.resume(); // Stays until it is stopped or killed.
await new Promise(() => undefined);
