// Post-launch actions: what a landed machine is asked, in order, once its processor runs; some of them must pass.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { Probe } from "../../landing/target.ts";
import type { StepContext } from "../jobs/job.ts";
import type { Item } from "./item.ts";
import type { ReplicationFront, ReplicationWorld } from "./world.ts";

const port = z.number().int().min(1).max(65_535);
const common = {
  /** For people; made of what it asks unless told. */
  name: z.string().min(1).max(80).optional(),
  /** A required one that does not pass ends the job, and takes back what it did. */
  isRequired: z.boolean().default(true),
  timeoutSeconds: z.number().min(1).max(7200).optional(),
};

/** A probe from outside the guest, or a program of the hub's host that its configuration names; nothing is put into the guest. */
export const launchActionShape = z.discriminatedUnion("kind", [
  z.strictObject({ kind: z.literal("http"), port, path: z.string().startsWith("/").max(500).default("/"), ...common }),
  z.strictObject({ kind: z.literal("tcp"), port, ...common }),
  z.strictObject({ kind: z.literal("ssh"), port: port.default(22), ...common }),
  z.strictObject({ kind: z.literal("serial"), text: z.string().min(1).max(500), ...common }),
  /** One of `landing.probePrograms` of the hub's configuration. */
  z.strictObject({ kind: z.literal("script"), program: z.string().min(1).max(80), ...common }),
]);
export type LaunchAction = z.infer<typeof launchActionShape>;

const actionsMax = 16;
export const launchActionsShape = z.array(launchActionShape).max(actionsMax);

export interface ActionOutcome {
  readonly name: string;
  readonly kind: LaunchAction["kind"];
  readonly isRequired: boolean;
  readonly isPassed: boolean;
  readonly seconds: number;
  /** What was heard, or why nothing was. */
  readonly said: string;
  readonly endedAt: string;
}

export interface ActionsState {
  readonly actions?: readonly ActionOutcome[];
}

const saidCharactersMax = 2000;

/** Those of the call, else the machine's own. Fault InputInvalid for a program that this hub does not have. */
export function actionsFor(
  front: Pick<ReplicationFront, "probePrograms">,
  item: Item,
  asked: readonly LaunchAction[] | undefined,
): readonly LaunchAction[] {
  const actions = asked ?? item.settings.postLaunchActions;
  for (const action of actions) if (action.kind === "script") programOf(front, action.program);
  return actions;
}

/** In order. What has been asked already is not asked again by a step that runs anew. */
export async function runActions<State extends ActionsState>(
  world: Pick<ReplicationWorld, "target" | "probePrograms"> & {
    readonly services: { readonly clock: { nowMs(): number } };
    readonly limits: { readonly probeSeconds: number };
  },
  context: StepContext<object, State>,
  { machine, actions }: { readonly machine: string; readonly actions: readonly LaunchAction[] },
): Promise<void> {
  const done: ActionOutcome[] = [...(context.state.actions ?? [])];
  requirePassed(machine, done);
  for (const action of actions.slice(done.length)) {
    await context.progress((100 * done.length) / actions.length, `asks: ${nameOf(action)}`);
    const outcome = await world.target.probe(
      machine,
      toProbe(world, action),
      action.timeoutSeconds ?? world.limits.probeSeconds,
      context.signal,
    );
    const isPassed = outcome.kind === "answered";
    const said = (outcome.kind === "answered" ? outcome.body : outcome.reason).slice(0, saidCharactersMax);
    const endedAt = toTimestamp(world.services.clock.nowMs());
    const { kind, isRequired } = action;
    done.push({ name: nameOf(action), kind, isRequired, isPassed, seconds: outcome.seconds, said, endedAt });
    const told: ActionsState = { actions: [...done] };
    await context.save(told as Partial<State>); // ActionsState is a part of State.
    requirePassed(machine, done);
  }
}

/** Also after a restart between the answer and its judgement. */
function requirePassed(machine: string, done: readonly ActionOutcome[]): void {
  const failed = done.find(({ isRequired, isPassed }) => isRequired && !isPassed);
  if (failed === undefined) return;
  throw new Fault("ProbeFailed", `the landed machine ${machine} did not pass "${failed.name}"`, {
    evidence: { machine, action: failed.name, reason: failed.said, seconds: failed.seconds },
  });
}

function toProbe(world: Pick<ReplicationWorld, "probePrograms">, action: LaunchAction): Probe {
  switch (action.kind) {
    case "http":
      return { kind: "http", port: action.port, path: action.path };
    case "tcp":
    case "ssh":
      return { kind: action.kind, port: action.port };
    case "serial":
      return { kind: "serial", text: action.text };
    case "script":
      return { kind: "script", program: programOf(world, action.program) };
  }
}

function programOf({ probePrograms = new Map() }: Pick<ReplicationWorld, "probePrograms">, name: string): string {
  const path = probePrograms.get(name);
  if (path !== undefined) return path;
  throw new Fault("InputInvalid", `could not use the program ${name}: this hub's configuration names none of that name`, {
    evidence: { programs: [...probePrograms.keys()].slice(0, 50) },
    action: "name one of these, or have the hub's operator add it to landing.probePrograms",
  });
}

function nameOf(action: LaunchAction): string {
  if (action.name !== undefined) return action.name;
  switch (action.kind) {
    case "http":
      return `http ${action.port}${action.path}`;
    case "tcp":
    case "ssh":
      return `${action.kind} ${action.port}`;
    case "serial":
      return `serial ${JSON.stringify(action.text)}`;
    case "script":
      return `program ${action.program}`;
  }
}
