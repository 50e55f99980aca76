// The agent as a systemd service: its unit text, where its files lie, and how all of it is removed.

import { rm } from "node:fs/promises";
import { runCommand, tryCommand } from "../base/run-command.ts";
import { removeTrackingExcept } from "./changes/ladder.ts";

export const agentPlaces = {
  installFolder: "/opt/watari-agent",
  node: "/opt/watari-agent/bin/node",
  program: "/opt/watari-agent/agent.mjs",
  stateFolder: "/var/lib/watari-agent",
  unitName: "watari-agent.service",
  unitFile: "/etc/systemd/system/watari-agent.service",
} as const;

/** Exit status of an agent that has removed itself; 3 is a refusal for good, a clone for one. */
export const uninstalledStatus = 10;

export interface UnitOptions {
  /** Processors that the agent may use; one unless told. */
  readonly cores?: number;
  /** Further arguments of "agent run". */
  readonly more?: readonly string[];
}

/**
 * No ProtectSystem and no private mounts: the agent must see the machine's own mounts to freeze them. ExecStopPost thaws
 * whatever a killed agent left frozen and puts back what it had switched, by the markers in /run. Large buffers go back to the kernel at once (the two thresholds):
 * else the C library keeps them, 20 to 30 MB, for no time won.
 */
export function agentUnitText({ cores = 1, more = [] }: UnitOptions = {}): string {
  const run = ["run", "--state", agentPlaces.stateFolder, ...(cores === 1 ? [] : ["--cores", String(cores)]), ...more].join(" ");
  return `[Unit]
Description=Watari mobility agent: replicates this machine's disks
After=network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Environment=UV_THREADPOOL_SIZE=4 MALLOC_ARENA_MAX=2 MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=1048576 NODE_ENV=production
ExecStart=${agentPlaces.node} --disable-warning=ExperimentalWarning --max-old-space-size=64 --max-semi-space-size=2 ${agentPlaces.program} ${run}
ExecStopPost=/bin/sh -c 'm=/run/watari-agent-frozen; [ -e $$m ] || exit 0; if [ -w /proc/sysrq-trigger ]; then echo j > /proc/sysrq-trigger; else while read -r path || [ -n "$$path" ]; do fsfreeze --unfreeze "$$path"; done < $$m; fi; rm -f $$m'
ExecStopPost=/bin/sh -c 'm=/run/watari-agent-short-waits; [ ! -e $$m ] || { echo 0 > /sys/kernel/rcu_expedited; rm -f $$m; }'
Restart=always
RestartSec=2
RestartPreventExitStatus=3 ${uninstalledStatus}
SuccessExitStatus=${uninstalledStatus}
TimeoutStopSec=20
Nice=10
IOWeight=20
CPUWeight=20
CPUQuota=${cores * 100}%
MemoryMax=512M
OOMScoreAdjust=500
LimitMEMLOCK=infinity
NoNewPrivileges=yes

[Install]
WantedBy=multi-user.target
`;
}

/** Removes service, unit, files, pins, keys and certificates. The process that calls it may be the service: it ends by itself. */
export async function removeInstallation(stateFolder: string): Promise<void> {
  await removeTrackingExcept(new Set());
  await rm("/sys/fs/bpf/watari", { recursive: true, force: true });
  await tryCommand("systemctl", ["disable", agentPlaces.unitName]); // Not enabled, or no systemd: the files go all the same.
  await rm(agentPlaces.unitFile, { force: true });
  await rm(stateFolder, { recursive: true, force: true });
  await rm(agentPlaces.installFolder, { recursive: true, force: true });
  await runCommand("systemctl", ["daemon-reload"]).catch(() => undefined); // Without systemd there is nothing to reload.
}
