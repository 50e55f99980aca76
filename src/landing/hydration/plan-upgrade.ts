// The unit that upgrades a landed copy's operating system after its first boot, from a disk beside it. The work itself is a script on that disk.

import { upgradeLabel, upgradeMount } from "../../contract/os-upgrade.ts";
import { Fault } from "../../contract/errors.ts";
import type { FileChange, VolumeFiles } from "./volume-files.ts";

const unitName = "watari-os-upgrade.service";
const unitFolder = "/etc/systemd/system";
const wantsFolder = `${unitFolder}/multi-user.target.wants`;

/** It does not hold the boot up, and goes on where it was when the machine is started again before its end. */
const unit = `[Unit]
Description=Upgrade of the operating system after the migration (Watari)
After=local-fs.target systemd-udev-trigger.service
Requires=local-fs.target

[Service]
Type=exec
ExecStartPre=/bin/mkdir -p ${upgradeMount}
ExecStartPre=/bin/sh -c 'udevadm settle; mountpoint -q ${upgradeMount} || mount -t ext4 -o ro,noexec,nosuid,nodev LABEL=${upgradeLabel} ${upgradeMount}'
ExecStart=/bin/sh ${upgradeMount}/upgrade.sh
TimeoutStartSec=10min
TimeoutStopSec=10min

[Install]
WantedBy=multi-user.target
`;

/** Throws HydrationUnsupported for a guest without systemd. A unit that is there already is written anew. */
export async function planUpgrade(
  rootFiles: VolumeFiles,
): Promise<{ readonly rootChanges: readonly FileChange[]; readonly changes: readonly string[] }> {
  const [own, wants] = [await rootFiles.list(unitFolder), await rootFiles.list(wantsFolder)];
  if (own === undefined)
    throw new Fault("HydrationUnsupported", "could not prepare the upgrade of the operating system: the guest has no systemd", {
      action: "land it without an upgrade",
    });
  const rootChanges: FileChange[] = [];
  if (own.some(({ name }) => name === unitName)) rootChanges.push({ kind: "remove", path: `${unitFolder}/${unitName}` });
  rootChanges.push({ kind: "write", path: `${unitFolder}/${unitName}`, content: Buffer.from(unit), mode: 0o644 });
  if (wants === undefined) rootChanges.push({ kind: "makeFolder", path: wantsFolder });
  if (wants?.some(({ name }) => name === unitName) !== true)
    rootChanges.push({ kind: "link", path: `${wantsFolder}/${unitName}`, to: `${unitFolder}/${unitName}` });
  return { rootChanges, changes: [`${unitFolder}/${unitName}: upgrades the system after the first boot, from the disk ${upgradeLabel}`] };
}
