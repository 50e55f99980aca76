// A shell script that makes the machine in Proxmox VE with qm, from the folder that holds its disks (qm(1)).

import { bootFirst, toMebibytes, type DefinedMachine } from "./defined-machine.ts";

export function renderProxmox(machine: DefinedMachine): string {
  const { name, cpuCount, memoryBytes, firmware, nics } = machine;
  const disks = bootFirst(machine.disks);
  return [
    "#!/bin/sh",
    `# Makes the machine ${name} in Proxmox VE. Run it on a node: sh import-proxmox.sh VMID [STORAGE] [BRIDGE]`,
    "set -eu",
    'vmid=${1:?"the id of the new machine is missing"}',
    "storage=${2:-local-lvm}",
    "bridge=${3:-vmbr0}",
    'folder=$(cd "$(dirname "$0")" && pwd)',
    "",
    `qm create "$vmid" --name ${name} --ostype l26 --machine q35 --cpu host --cores ${cpuCount} --memory ${toMebibytes(memoryBytes)} \\`,
    `  --bios ${firmware === "efi" ? "ovmf" : "seabios"} --vga std --serial0 socket --onboot 0`,
    ...(firmware === "efi" ? ['qm set "$vmid" --efidisk0 "$storage:0,efitype=4m,pre-enrolled-keys=0"'] : []),
    ...nics.map(({ mac, guestName }, index) => `qm set "$vmid" --net${index} "virtio=${mac.toUpperCase()},bridge=$bridge" # ${guestName}`),
    ...disks.map(({ fileName }, index) => `qm set "$vmid" --virtio${index} "$storage:0,import-from=$folder/${fileName},discard=on"`),
    'qm set "$vmid" --boot order=virtio0',
    'echo "qm start $vmid starts it"',
    "",
  ].join("\n");
}
