// Takes the replication agent off a clone: the landed machine must neither call the old site nor carry its keys.

import type { FileChange, VolumeFiles } from "./volume-files.ts";

/** Where the agent lies in a guest; the agent's own removal (agent/unit.ts) ends at the same places. */
const agentFolders = ["/opt/watari-agent", "/var/lib/watari-agent"] as const;
const unitName = "watari-agent.service";
const unitFolders = ["/etc/systemd/system/multi-user.target.wants", "/etc/systemd/system"] as const;

const depthMax = 6;
const entriesMax = 2000;

export interface AgentRemoval {
  readonly rootChanges: readonly FileChange[];
  readonly changes: readonly string[];
}

/** Plans the removal; nothing to do where there is no agent. */
export async function planAgentRemoval(rootFiles: VolumeFiles): Promise<AgentRemoval> {
  const rootChanges: FileChange[] = [];
  const changes: string[] = [];
  for (const folder of unitFolders) {
    const files = await rootFiles.list(folder);
    if (files?.some((file) => file.name === unitName) !== true) continue;
    rootChanges.push({ kind: "remove", path: `${folder}/${unitName}` });
    changes.push(`${folder}/${unitName}: removed; the agent served the source`);
  }
  for (const folder of agentFolders) {
    const tree = await removeTree(rootFiles, folder, depthMax);
    if (tree === undefined) continue;
    rootChanges.push(...tree);
    changes.push(`${folder}: removed, with the agent's keys`);
  }
  if (rootChanges.length > entriesMax)
    return { rootChanges: [], changes: ["! the agent's folders hold more files than it ever makes; they are left"] };
  return { rootChanges, changes };
}

/** Removals of a folder, children first; undefined when there is no such folder. */
async function removeTree(rootFiles: VolumeFiles, folder: string, depthLeft: number): Promise<readonly FileChange[] | undefined> {
  const entries = await rootFiles.list(folder);
  if (entries === undefined) return undefined;
  const removals: FileChange[] = [];
  for (const entry of entries) {
    const path = `${folder}/${entry.name}`;
    if (entry.kind !== "folder") removals.push({ kind: "remove", path });
    else if (depthLeft > 0) removals.push(...((await removeTree(rootFiles, path, depthLeft - 1)) ?? []));
  }
  return [...removals, { kind: "removeFolder", path: folder }];
}
