// The machine as a libvirt domain (libvirt's "Domain XML format"). Its disks lie where libvirt keeps images.

import { bootFirst, toMebibytes, type DefinedMachine } from "./defined-machine.ts";

const imageFolder = "/var/lib/libvirt/images";

export function renderLibvirt(machine: DefinedMachine): string {
  const { name, cpuCount, memoryBytes, firmware, format, nics } = machine;
  const os = firmware === "efi" ? '<os firmware="efi">' : "<os>";
  const noSecureBoot = ["    <firmware>", '      <feature enabled="no" name="secure-boot"/>', "    </firmware>"];
  return [
    `<!-- Copy the disks to ${imageFolder}/${name}/, then: virsh define domain.xml -->`,
    '<domain type="kvm">',
    `  <name>${name}</name>`,
    `  <memory unit="MiB">${toMebibytes(memoryBytes)}</memory>`,
    `  <vcpu placement="static">${cpuCount}</vcpu>`,
    `  ${os}`,
    '    <type arch="x86_64" machine="q35">hvm</type>',
    ...(firmware === "efi" ? noSecureBoot : []),
    "  </os>",
    "  <features>",
    "    <acpi/>",
    "    <apic/>",
    "  </features>",
    '  <cpu mode="host-passthrough"/>',
    '  <clock offset="utc"/>',
    "  <on_poweroff>destroy</on_poweroff>",
    "  <on_reboot>restart</on_reboot>",
    "  <on_crash>restart</on_crash>",
    "  <devices>",
    ...bootFirst(machine.disks).flatMap(({ fileName }, index) => [
      '    <disk type="file" device="disk">',
      `      <driver name="qemu" type="${format}" discard="unmap"/>`,
      `      <source file="${imageFolder}/${name}/${fileName}"/>`,
      `      <target dev="vd${letterOf(index)}" bus="virtio"/>`,
      `      <boot order="${index + 1}"/>`,
      "    </disk>",
    ]),
    ...nics.flatMap(({ mac, guestName }) => [
      `    <!-- ${guestName.replaceAll("--", "- -")} -->`,
      '    <interface type="network">',
      `      <mac address="${mac.toLowerCase()}"/>`,
      '      <source network="default"/>',
      '      <model type="virtio"/>',
      "    </interface>",
    ]),
    '    <serial type="pty"/>',
    '    <console type="pty"/>',
    '    <graphics type="vnc">',
    '      <listen type="socket"/>',
    "    </graphics>",
    "    <video>",
    '      <model type="vga"/>',
    "    </video>",
    '    <rng model="virtio">',
    '      <backend model="random">/dev/urandom</backend>',
    "    </rng>",
    "  </devices>",
    "</domain>",
    "",
  ].join("\n");
}

function letterOf(index: number): string {
  return String.fromCodePoint(97 + index);
}
