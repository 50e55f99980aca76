// The action exportDefinition of a landed machine: how another program of its host runs it, on the disks that it has.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { definitionFileOf } from "../../landing/definitions/definition.ts";
import { renderLandedLibvirt } from "../../landing/definitions/libvirt.ts";
import { defineAction, type ActionDefinition } from "../api/resource-type.ts";
import { landedMachineShape, requireHere } from "./landed.ts";
import type { ReplicationFront } from "./world.ts";

const definitionBody = z.strictObject({ format: z.enum(["libvirt"]) });

export function definitionAction({ target, place }: ReplicationFront): ActionDefinition {
  return defineAction({
    body: definitionBody,
    run: async (_call, { format }, { properties }) => {
      const landed = landedMachineShape.parse(properties);
      requireHere(landed, place);
      const { name } = landed.launch;
      if (target.define === undefined)
        throw new Fault("OperationNotSupported", `could not define the machine ${name}: it is not of this host`, {
          evidence: { target: target.kind },
          action: "export a recovery point: watari machine export",
        });
      return { kind: "done", body: { fileName: definitionFileOf(format), definition: renderLandedLibvirt(await target.define(name)) } };
    },
  });
}
