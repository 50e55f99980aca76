// The action openConsole of a landed machine: a ticket for one line to its serial console or screen, good once and soon.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ConsoleLine, ConsoleWish } from "../../landing/target.ts";
import { defineAction, type ActionDefinition } from "../api/resource-type.ts";
import { consolePagePath } from "../consoles/console-page.ts";
import { consolePrefix, consoleProtocols } from "../consoles/consoles.ts";
import { findLanded, landedMachineShape, requireHere } from "./landed.ts";
import type { ReplicationFront } from "./world.ts";

const consoleBody = z.strictObject({
  kind: z.enum(["serial", "screen"]),
  access: z.enum(["read", "write"]).default("write"),
  /** Whoever writes to the serial console loses the line. */
  takeOver: z.boolean().default(false),
});

export function offerConsoles(front: ReplicationFront): void {
  const { consoles, database } = front.services;
  consoles.offer(async (machineId, wish) => {
    const landed = await findLanded(database.db, machineId);
    if (landed === undefined) throw new Fault("NotFound", "could not open the console: the machine is gone", { evidence: { machineId } });
    requireHere(landed, front.place);
    return await openLine(front, landed.launch.name, wish);
  }, front.consoleOrigins ?? []);
}

async function openLine({ target }: ReplicationFront, name: string, wish: ConsoleWish): Promise<ConsoleLine> {
  if (target.openConsole !== undefined) return await target.openConsole(name, wish);
  throw new Fault("OperationNotSupported", `could not open the console of ${name}: machines of this place have none that the hub reaches`, {
    evidence: { target: target.kind },
    action: "use the place's own console; what a machine said is in retrieveBootDiagnosticsData",
  });
}

/** Rights were asked when the action was called: the ticket is for that caller, machine and kind of line alone. */
export function consoleAction(front: ReplicationFront): ActionDefinition {
  const { consoles, clock } = front.services;
  return defineAction({
    body: consoleBody,
    run: async ({ caller, correlationId, origin }, { kind, access, takeOver }, { id, properties }) => {
      const landed = landedMachineShape.parse(properties);
      requireHere(landed, front.place);
      if (kind === "screen" && access === "read")
        throw new Fault("InputInvalid", `could not open the screen of ${id.name}: a viewer always types, too`, {
          evidence: { kind, access },
          action: "call with access write, or look at its picture: retrieveBootDiagnosticsData",
        });
      if (front.target.openConsole === undefined) await openLine(front, landed.launch.name, { kind, access });
      const { principalId, name: principalName } = caller;
      const who = { principalId, principalName, correlationId };
      const { ticket, lifeMs } = consoles.grant({ ...who, machineId: id.text, wish: { kind, access }, takesOver: takeOver });
      return {
        kind: "done",
        body: {
          url: `${origin.replace(/^http/, "ws")}${consolePrefix}${kind}?ticket=${ticket}`,
          ...(kind === "serial" ? { pageUrl: `${origin}${consolePagePath}#ticket=${ticket}` } : {}),
          subprotocols: [...consoleProtocols],
          expiresAt: toTimestamp(clock.nowMs() + lifeMs),
        },
      };
    },
  });
}
