// A shell script that makes the machine in OpenStack: images with what Nova must know of them, ports with its addresses, volumes, the server.

import { bootFirst, toGibibytes, toMebibytes, type DefinedMachine } from "./defined-machine.ts";

export function renderOpenStack(machine: DefinedMachine): string {
  const { name, cpuCount, memoryBytes, firmware, format, nics } = machine;
  const [boot, ...others] = bootFirst(machine.disks);
  if (boot === undefined) return "";
  const memoryMB = toMebibytes(memoryBytes);
  const properties = [
    "hw_disk_bus=virtio",
    "hw_vif_model=virtio",
    "hw_machine_type=q35",
    `hw_firmware_type=${firmware === "efi" ? "uefi" : "bios"}`,
    "os_type=linux",
  ];
  const image = `openstack image create --disk-format ${format} --container-format bare`;
  return [
    "#!/bin/sh",
    `# Makes the machine ${name} in OpenStack: sh import-openstack.sh FLAVOR NETWORK`,
    `# The flavor has at least ${cpuCount} vCPUs, ${memoryMB} MiB of memory and a disk of ${toGibibytes(boot.sizeBytes)} GiB, or none and a volume to boot from.`,
    "set -eu",
    'flavor=${1:?"the flavor is missing"}',
    'network=${2:?"the network is missing"}',
    'folder=$(cd "$(dirname "$0")" && pwd)',
    "",
    `${image} --min-ram ${memoryMB} --min-disk ${toGibibytes(boot.sizeBytes)} \\`,
    `  ${properties.map((property) => `--property ${property}`).join(" ")} \\`,
    `  --file "$folder/${boot.fileName}" ${name}-disk0`,
    ...others.flatMap(({ fileName, sizeBytes }, index) => [
      `${image} --file "$folder/${fileName}" ${name}-disk${index + 1}`,
      `openstack volume create --image ${name}-disk${index + 1} --size ${toGibibytes(sizeBytes)} ${name}-disk${index + 1}`,
      `until [ "$(openstack volume show -f value -c status ${name}-disk${index + 1})" = available ]; do sleep 5; done`,
    ]),
    ...nics.map(
      ({ mac, guestName }, index) =>
        `openstack port create --network "$network" --mac-address ${mac.toLowerCase()} ${name}-nic${index} # ${guestName}`,
    ),
    `openstack server create --wait --image ${name}-disk0 --flavor "$flavor"${nics.map((_, index) => ` --port ${name}-nic${index}`).join("")}${nics.length === 0 ? " --nic none" : ""} ${name}`,
    ...others.map((_, index) => `openstack server add volume ${name} ${name}-disk${index + 1}`),
    "",
  ].join("\n");
}
