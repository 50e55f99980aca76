// For tests: the appliance as a process of its own, to be killed at any instant.

import { silentLog, openLog } from "../../base/log.ts";
import { startAppliance } from "../main.ts";

const stateFolder = process.argv[2] ?? "";
const log = process.env["WATARI_TEST_LOG"] === undefined ? silentLog : openLog({ program: "appliance" });
const appliance = await startAppliance({
  stateFolder,
  log,
  agentFiles: async () => await Promise.reject(new Error("this test installs no agent")),
});
process.stdout.write(`${appliance.ports.controlPort}\n`);
process.once("SIGTERM", () => void appliance[Symbol.asyncDispose]());
