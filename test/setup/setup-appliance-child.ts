// For tests: an appliance with its set-up page as a process of its own, from the folder of a page that was made already. Prints the page's port.

import { silentLog } from "../../src/base/log.ts";
import { startApplianceHost } from "../../src/appliance/appliance-host.ts";
import { readSetupFiles } from "../../src/appliance/setup/setup-files.ts";

const appliance = await startApplianceHost({
  stateFolder: process.argv[2] ?? "",
  log: silentLog,
  setupFiles: async () => await readSetupFiles(process.argv[3] ?? ""),
  agentFiles: async () => await Promise.reject(new Error("this test installs no agent")),
});
process.stdout.write(`${appliance.setupListening[0]?.port ?? 0}\n`);
process.once("SIGTERM", () => void appliance[Symbol.asyncDispose]());
