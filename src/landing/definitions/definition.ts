// Ready definitions of an exported machine for other platforms: one text file beside its disks. Pure: from facts to text.

import { Fault } from "../../contract/errors.ts";
import type { TargetHardware } from "../hydration/hydrate.ts";
import { hyperVHardware } from "../hydration/hyper-v.ts";
import type { ImageFormat } from "../qemu/write-images.ts";
import type { DefinedMachine } from "./defined-machine.ts";
import { renderHyperV } from "./hyper-v.ts";
import { renderKubeVirt } from "./kubevirt.ts";
import { renderLibvirt } from "./libvirt.ts";
import { renderOpenStack } from "./openstack.ts";
import { renderProxmox } from "./proxmox.ts";

export const platforms = ["proxmox", "libvirt", "openstack", "kubevirt", "hyper-v"] as const;
export type Platform = (typeof platforms)[number];

interface PlatformRules {
  readonly fileName: string;
  /** The first is taken unless another is asked for. */
  readonly formats: readonly [ImageFormat, ...ImageFormat[]];
  readonly render: (machine: DefinedMachine) => string;
}

const rules: Readonly<Record<Platform, PlatformRules>> = {
  proxmox: { fileName: "import-proxmox.sh", formats: ["qcow2", "raw", "vmdk"], render: renderProxmox },
  libvirt: { fileName: "domain.xml", formats: ["qcow2", "raw"], render: renderLibvirt },
  openstack: { fileName: "import-openstack.sh", formats: ["qcow2", "raw", "vmdk"], render: renderOpenStack },
  kubevirt: { fileName: "virtual-machine.yaml", formats: ["qcow2", "raw"], render: renderKubeVirt },
  "hyper-v": { fileName: "Import-HyperV.ps1", formats: ["vhd"], render: renderHyperV },
};

/** What its machines are made of; absent: virtio. */
export function hardwareOf(platform: Platform): TargetHardware | undefined {
  return platform === "hyper-v" ? hyperVHardware : undefined;
}

export function definitionFileOf(platform: Platform): string {
  return rules[platform].fileName;
}

/** Throws InputInvalid for a format that the platform does not take. */
export function formatFor(platform: Platform, asked: ImageFormat | undefined): ImageFormat {
  const { formats } = rules[platform];
  if (asked === undefined) return formats[0];
  if (formats.includes(asked)) return asked;
  throw new Fault("InputInvalid", `could not export for ${platform}: it does not take disks as ${asked}`, {
    evidence: { format: asked, formats },
  });
}

/** Throws InputInvalid for a machine whose name or card could be read as something else. */
export function renderDefinition(platform: Platform, machine: DefinedMachine): string {
  const isPlain =
    /^[a-z0-9-]{1,60}$/.test(machine.name) &&
    machine.disks.every(({ fileName }) => /^[a-z0-9.-]{1,80}$/.test(fileName)) &&
    machine.nics.every(
      ({ mac, guestName }) => /^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}$/.test(mac) && /^[A-Za-z0-9._-]{1,64}$/.test(guestName),
    );
  if (!isPlain)
    throw new Fault("InputInvalid", `could not write the definition of ${JSON.stringify(machine.name)}: a name in it is not plain`);
  return rules[platform].render(machine);
}
