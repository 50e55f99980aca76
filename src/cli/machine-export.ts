// `watari machine export`: a recovery point's disks as files at the hub, with a ready definition for another platform.

import type { Command } from "commander";
import { z } from "zod";
import { act, type VaultOptions } from "./machine-act.ts";

interface ExportOptions extends VaultOptions {
  readonly platform?: string;
  readonly format?: string;
  readonly point?: string;
  readonly hydrate: boolean;
}

const evidenceShape = z.looseObject({
  files: z.array(z.looseObject({ path: z.string() })).default([]),
  definition: z.string().optional(),
});
const jobShape = z.looseObject({ properties: z.looseObject({ watari: z.looseObject({ evidence: evidenceShape }) }) });

export function registerMachineExport(verb: (usage: string, description: string) => Command): void {
  const command = verb("export <name>", "write a recovery point's disks as files into the hub's export folder");
  command
    .addOption(
      command
        .createOption("--platform <name>", "write its definition for this platform beside them")
        .choices(["proxmox", "libvirt", "openstack", "kubevirt", "hyper-v"]),
    )
    .addOption(
      command
        .createOption("--format <format>", "of the disks (default: the platform's own, or qcow2)")
        .choices(["raw", "qcow2", "vhd", "vmdk"]),
    )
    .option("--point <id>", "recovery point (default: the newest)")
    .option("--no-hydrate", "leave the disks as they were at the source")
    .action(async (name: string, { platform, format, point, hydrate, ...options }: ExportOptions) => {
      const asked = format ?? (platform === undefined ? "qcow2" : undefined);
      const providerSpecificDetails = {
        ...(platform === undefined ? {} : { platform }),
        ...(asked === undefined ? {} : { format: asked }),
        ...(point === undefined ? {} : { recoveryPointId: point }),
        isHydrated: hydrate,
      };
      await act(name, options, {
        action: "export",
        properties: { providerSpecificDetails },
        moreText: (job) => {
          const { files, definition } = jobShape.parse(job).properties.watari.evidence;
          return [...files.map(({ path }) => path), ...(definition === undefined ? [] : [definition])].join("\n");
        },
      });
    });
}
