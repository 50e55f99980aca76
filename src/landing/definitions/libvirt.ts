// The machine as a libvirt domain (libvirt's "Domain XML format"). Its disks lie where libvirt keeps images.

import { bootFirst, toMebibytes, type DefinedMachine, type LandedDefinition } from "./defined-machine.ts";

const imageFolder = "/var/lib/libvirt/images";

export function renderLibvirt(machine: DefinedMachine): string {
  const { name, format, firmware } = machine;
  const noSecureBoot = ["    <firmware>", '      <feature enabled="no" name="secure-boot"/>', "    </firmware>"];
  return renderDomain(machine, {
    note: `Copy the disks to ${imageFolder}/${name}/, then: virsh define domain.xml`,
    os: firmware === "efi" ? '<os firmware="efi">' : "<os>",
    loader: firmware === "efi" ? noSecureBoot : [],
    disks: bootFirst(machine.disks).map(({ fileName }, index) => ({
      ...{ path: `${imageFolder}/${name}/${fileName}`, format, bootOrder: index + 1 },
    })),
    nics: machine.nics.map((nic) => ({ ...nic, kind: "network", lines: ['      <source network="default"/>'] })),
  });
}

/** A landed machine where it lies: its disks in their order, each the guest's under the number that it has here. */
export function renderLandedLibvirt(machine: LandedDefinition): string {
  const { name, efi } = machine;
  const loader =
    efi === undefined
      ? []
      : [
          `    <loader readonly="yes" secure="no" type="pflash">${markup(efi.codePath)}</loader>`,
          `    <nvram>${markup(efi.variablesPath)}</nvram>`,
        ];
  return renderDomain(machine, {
    note: `The disks are those that ${name} runs on: before virsh define domain.xml, stop it with watari landed stop, and let it not start by itself`,
    os: "<os>",
    loader,
    disks: machine.disks.map(({ path, isBoot, serial }) => ({ path, serial, format: "qcow2", ...(isBoot ? { bootOrder: 1 } : {}) })),
    nics: machine.nics.map((nic) => ({ ...nic, ...cardOf(nic.wire) })),
  });
}

function cardOf(wire: LandedDefinition["nics"][number]["wire"]): { readonly kind: string; readonly lines: readonly string[] } {
  switch (wire.kind) {
    case "bridge":
      return { kind: "bridge", lines: [`      <source bridge="${markup(wire.bridge)}"/>`] };
    case "user":
      return { kind: "user", lines: [] };
    case "none":
      return { kind: "user", lines: ['      <link state="down"/>'] };
  }
}

interface Domain {
  readonly note: string;
  readonly os: string;
  readonly loader: readonly string[];
  readonly disks: readonly { readonly path: string; readonly format: string; readonly serial?: string; readonly bootOrder?: number }[];
  readonly nics: readonly { readonly mac: string; readonly guestName: string; readonly kind: string; readonly lines: readonly string[] }[];
}

function renderDomain({ name, cpuCount, memoryBytes }: Pick<DefinedMachine, "name" | "cpuCount" | "memoryBytes">, domain: Domain): string {
  const { note, os, loader, disks, nics } = domain;
  return [
    `<!-- ${note} -->`,
    '<domain type="kvm">',
    `  <name>${name}</name>`,
    `  <memory unit="MiB">${toMebibytes(memoryBytes)}</memory>`,
    `  <vcpu placement="static">${cpuCount}</vcpu>`,
    `  ${os}`,
    '    <type arch="x86_64" machine="q35">hvm</type>',
    ...loader,
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
    ...disks.flatMap(({ path, format, serial, bootOrder }, index) => [
      '    <disk type="file" device="disk">',
      `      <driver name="qemu" type="${format}" discard="unmap"/>`,
      `      <source file="${markup(path)}"/>`,
      `      <target dev="vd${letterOf(index)}" bus="virtio"/>`,
      ...(serial === undefined ? [] : [`      <serial>${markup(serial)}</serial>`]),
      ...(bootOrder === undefined ? [] : [`      <boot order="${bootOrder}"/>`]),
      "    </disk>",
    ]),
    ...nics.flatMap(({ mac, guestName, kind, lines }) => [
      `    <!-- ${guestName.replaceAll("--", "- -")} -->`,
      `    <interface type="${kind}">`,
      `      <mac address="${mac.toLowerCase()}"/>`,
      ...lines,
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

function markup(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

function letterOf(index: number): string {
  return String.fromCodePoint(97 + index);
}
