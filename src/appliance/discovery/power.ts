// Powers a machine off or on through its vCenter: order, wait for the task, then read the state back.

import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { decodeAnswer, referenceShape, referenceXml, textShape, type ManagedObject } from "./soap.ts";
import type { VcenterSession } from "./vcenter-session.ts";

const taskMsMax = 180_000;
const lookAgainMs = 500;

export type PowerState = "poweredOn" | "poweredOff" | "suspended";

/** Done only when the state was read back from the vCenter. A machine that is in the state already is left alone. */
export async function setPower(
  session: VcenterSession,
  order: { readonly machine: ManagedObject; readonly wanted: "poweredOn" | "poweredOff"; readonly clock: Clock },
  signal?: AbortSignal,
): Promise<void> {
  const { machine, wanted, clock } = order;
  if ((await readPower(session, machine, signal)) === wanted) return;
  const method = wanted === "poweredOn" ? "PowerOnVM_Task" : "PowerOffVM_Task";
  const answer = await session.call({ method, on: machine, body: "" }, signal);
  await waitTask(session, { task: decodeAnswer(z.object({ returnval: referenceShape }), answer, "task").returnval, clock }, signal);
  const state = await readPower(session, machine, signal);
  if (state === wanted) return;
  throw new Fault("FenceUnconfirmed", `machine ${machine.id} is ${state} after the order to make it ${wanted}`, {
    evidence: { machine: machine.id, wanted, state },
  });
}

export async function readPower(session: VcenterSession, machine: ManagedObject, signal?: AbortSignal): Promise<PowerState> {
  const values = await readProperties(session, machine, ["runtime.powerState"], signal);
  return decodeAnswer(z.enum(["poweredOn", "poweredOff", "suspended"]), textOf(values.get("runtime.powerState")), "power state");
}

async function waitTask(
  session: VcenterSession,
  { task, clock }: { readonly task: ManagedObject; readonly clock: Clock },
  signal?: AbortSignal,
): Promise<void> {
  const endMs = clock.monotonicMs() + taskMsMax;
  for (;;) {
    const values = await readProperties(session, task, ["info.state", "info.error"], signal);
    const state = textOf(values.get("info.state"));
    if (state === "success") return;
    if (state === "error") {
      const told = z.looseObject({ localizedMessage: textShape.optional() }).safeParse(values.get("info.error"));
      throw new Fault("VcenterRefused", "the vCenter's task ended with an error", {
        evidence: { task: task.id, answer: told.data?.localizedMessage ?? "no reason given" },
      });
    }
    if (clock.monotonicMs() > endMs)
      throw new Fault("FenceUnconfirmed", "the vCenter's task did not end in time", { evidence: { task: task.id } });
    await clock.sleep(lookAgainMs, signal);
  }
}

const oneShape = z.object({
  returnval: z.object({ objects: z.array(z.object({ propSet: z.array(z.object({ name: textShape, val: z.unknown() })).default([]) })) }),
});

async function readProperties(
  session: VcenterSession,
  object: ManagedObject,
  paths: readonly string[],
  signal?: AbortSignal,
): Promise<ReadonlyMap<string, unknown>> {
  const body =
    `<specSet><propSet><type>${object.type}</type><all>false</all>${paths.map((path) => `<pathSet>${path}</pathSet>`).join("")}</propSet>` +
    `<objectSet>${referenceXml("obj", object)}</objectSet></specSet><options></options>`;
  const answer = await session.call({ method: "RetrievePropertiesEx", on: session.service.propertyCollector, body }, signal);
  const { objects } = decodeAnswer(oneShape, answer, "properties").returnval;
  return new Map(objects.flatMap(({ propSet }) => propSet.map(({ name, val }) => [name, val] as const)));
}

function textOf(value: unknown): string | undefined {
  const parsed = textShape.safeParse(value);
  return parsed.success ? parsed.data : undefined;
}
