// For tests: begins one audit entry, says so, and waits to be killed.

import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { openAuditTrail } from "./audit.ts";

const [, , socketFolder = "", user = "", database = "", headFile = ""] = process.argv;
const address = { kind: "socket" as const, socketFolder, user, database };
const trail = openAuditTrail({ address, headFile, clock: systemClock, random: systemRandom, log: silentLog });
const work = await trail.begin({ principalId: "p", principalName: "killed", action: "a/write", resourceId: "/r", correlationId: "c" });
process.stdout.write("begun\n");
await systemClock.sleep(60_000);
await work.end({ outcome: "200" });
