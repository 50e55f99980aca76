// What a landed machine is made of on this host, for a definition that other programs of the host can run it by.

import { Fault } from "../../contract/errors.ts";
import type { LandedDefinition } from "../definitions/defined-machine.ts";
import { serialLengthMax } from "./emulator.ts";
import type { Machine } from "./machine.ts";
import { namedNetwork, type NamedNetwork } from "./network.ts";

export async function defineLanded(machine: Machine, networks: Readonly<Record<string, NamedNetwork>>): Promise<LandedDefinition> {
  const { record, paths } = machine;
  const { name, cpuCount, memoryBytes } = record;
  if ((await machine.dependencies()).includes(true))
    throw new Fault("StateConflict", `could not define the machine ${name}: it still depends on its recovery point`, {
      causes: ["it is a test", "its disks are still being filled"],
      action: "commit the migration first, or export the recovery point: watari machine export",
    });
  const efi = await machine.efiFiles();
  const network = record.network.kind === "named" ? namedNetwork({ record, networks }) : undefined;
  const wire = network === undefined ? ({ kind: "none" } as const) : network.kind === "bridge" ? network : ({ kind: "user" } as const);
  return {
    ...{ name, cpuCount, memoryBytes },
    ...(efi === undefined ? {} : { efi }),
    disks: record.disks.map(({ diskId, isBoot }, index) => ({
      path: paths.overlay(index),
      isBoot,
      serial: diskId.slice(0, serialLengthMax),
    })),
    nics: record.nics.map(({ mac, guestName }) => ({ mac, guestName, wire })),
  };
}
