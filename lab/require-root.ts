// Says at once, and before anything is made, that the lab needs root, with the command to run instead.

import { Fault } from "../src/contract/errors.ts";

/** Throws RootNeeded unless this process is root. `command` is what the user called, for example "demo". */
export function requireRoot(command: string): void {
  if (process.getuid?.() === 0) return;
  throw new Fault("RootNeeded", `could not run "watari ${command}": it needs root, and nothing was installed or changed`, {
    evidence: { user: process.getuid?.() ?? -1 },
    action: `sudo ./watari ${command}`,
  });
}
