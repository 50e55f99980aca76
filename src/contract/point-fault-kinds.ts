// The rows of the table of faults that belong to making points: room for them, freezes, groups, and scripts around them.

import { row, type FaultKind } from "./fault-kind.ts";

export const pointFaultKinds = {
  CacheSpaceLow: row(
    507,
    6,
    "later",
    ["the line to the storage account is slower than the changes", "the disk of the appliance's cache is too small, or others fill it"],
    "free or add space on the disk of the appliance's cache; agents are let go by themselves as soon as a quarter of it is free",
  ),
  FreezeFailed: row(
    409,
    3,
    "later",
    ["the filesystems write more than could be read within the freeze limit", "another program holds a freeze"],
    "raise freezeMsMax in the policy or wait for a quieter time; the agent tries again by itself",
  ),
  QuiesceVoid: row(409, 3, "never", ["the hold time ended", "the watchdog thawed the filesystems"], "give the quiesce order again"),
  GroupPointMissed: row(
    409,
    3,
    "later",
    ["a machine of the group is off, cut off, or still in its first copy", "a machine of the group could not be frozen in time"],
    "look at the machine that is named; the others went on making points of their own, and the group's come back by themselves",
  ),
  ScriptRefused: row(
    409,
    3,
    "later",
    [
      "no script was put into the guest's scripts folder",
      "a script, or a folder above it, can be written by others than root",
      "a file in the scripts folder is no program",
    ],
    "put executable scripts of root into /etc/watari/agent/scripts.d (mode 0755 or less), or set appConsistentFrequencyInMinutes to 0",
  ),
  ScriptFailed: row(
    409,
    3,
    "later",
    ["the script ended with another code than 0", "the script ran longer than it may"],
    "read the script's output in the evidence, and run it by hand in the guest: SCRIPT --pre; SCRIPT --post",
  ),
} as const satisfies Record<string, FaultKind>;
