// Landed machines as Microsoft.Compute/virtualMachines: seen, switched, removed; their boot log; what only Azure could do is refused.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { ConsoleView } from "../../landing/target.ts";
import { defineAction, defineResource, noBody, type ActionDefinition, type ArmCall, type ResourceType } from "../api/resource-type.ts";
import { ArmFault } from "../api/arm-errors.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { Resource } from "../db/resources.ts";
import { landedMachineShape, requireHere, type LandedMachine } from "./landed.ts";
import { machineInput, putMachine } from "../compute/made-machine.ts";
import { refuseHeld, type PowerWish } from "./machine-jobs.ts";
import { autostartAction } from "./autostart.ts";
import { definitionAction } from "./machine-definition.ts";
import { consoleAction } from "./machine-console.ts";
import { presentMachine, seeMachine, showInstance, showMachine } from "./machine-view.ts";
import { machineType } from "./names.ts";
import type { ReplicationFront } from "./world.ts";

const bootLogKind = "bootLog";
const screenshotKind = "bootScreen";
const logMinutes = { least: 1, usual: 120, most: 1440 };

/** Azure's actions that nothing here could do, with the reason that is told. */
const refusedActions: Readonly<Record<string, string>> = {
  reimage: "a landed machine's disk has no image; migrate the machine again from a recovery point",
  redeploy: "there is one host; powerOff and start do what can be done",
  reapply: "a landed machine has no state beside its own",
  performMaintenance: "the host is not maintained by this hub",
  generalize: "landed machines are no images",
  capture: "landed machines are no images; export a recovery point instead",
  convertToManagedDisks: "the disks are managed already",
  runCommand: "the hub has no hands in the guest",
  installPatches: "the hub has no hands in the guest",
  assessPatches: "the hub has no hands in the guest",
  simulateEviction: "landed machines are not evicted",
  attachDetachDataDisks: "a landed machine keeps the disks of its recovery point",
  migrateToVirtualMachineScaleSet: "there are no scale sets",
};

/** Boot logs are read by signed links, without a token. */
export function offerBootLogs(front: ReplicationFront): void {
  const { resources, signedReads } = front.services;
  signedReads.offer(bootLogKind, async (name) => {
    const resource = await resources.find(name);
    return resource === undefined ? undefined : (await lookAt(front, resource))?.serialLog;
  });
  signedReads.offerStream(screenshotKind, async (name, from) => {
    const resource = await resources.find(name);
    const screenshot = resource === undefined ? undefined : (await lookAt(front, resource))?.screenshot;
    if (screenshot === undefined) throw new Fault("NotFound", "could not read the screen: the machine shows none");
    return yieldOnce(screenshot.subarray(from));
  });
}

/** Undefined for what is no machine here. */
async function lookAt({ target }: ReplicationFront, { id, properties }: Resource): Promise<ConsoleView | undefined> {
  if (id.type.toLowerCase() !== machineType.toLowerCase()) return undefined;
  const { name } = landedMachineShape.parse(properties).launch;
  return (await target.status(name)).power === "gone" ? undefined : await target.look(name);
}

async function* yieldOnce(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

export function machineResource(front: ReplicationFront): ResourceType {
  const power = (wish: PowerWish | ((call: ArmCall) => PowerWish)): ActionDefinition =>
    defineAction({
      body: noBody,
      isLong: true,
      run: async (call, _body, resource) => {
        const chosen = typeof wish === "string" ? wish : wish(call);
        return { kind: "accepted", operationId: await submit(front, call, resource, { kind: "MachinePower", wish: chosen }) };
      },
    });
  return defineResource({
    type: machineType,
    within: "resourceGroup",
    properties: z.record(z.string(), z.unknown()),
    canPatch: true,
    longWrites: ["PUT", "DELETE"],
    inputs: { put: machineInput },
    onPut: async (call, desired) => await putMachine(front, call, desired),
    onPatch: async (call, desired, patch) => {
      refuseChanges(call, patch, desired.envelope);
      const updated = await front.services.resources.update(call.id, ({ envelope }) => ({
        envelope: { ...envelope, tags: desired.envelope["tags"] ?? {} },
      }));
      if (updated === undefined) throw new Fault("NotFound", `could not find ${call.id.text}`, { evidence: { resourceId: call.id.text } });
      return { kind: "answered", body: await presentMachine(front, updated) };
    },
    onDelete: async (call, resource) => {
      isAsked(call, "forceDeletion"); // The machine ends at once in any case: no deletion waits for its guest.
      const landed = landedMachineShape.parse(resource.properties);
      requireHere(landed, front.place);
      await refuseHeld(front.services.database.db, landed);
      return { kind: "accepted", operationId: await submit(front, call, resource, { kind: "MachineRemoval" }) };
    },
    present: async (resource) => showMachine(await seeMachine(front, resource)),
    actions: {
      instanceView: defineAction({
        body: noBody,
        isRead: true,
        isGet: true,
        run: async (_call, _body, resource) => ({ kind: "done", body: showInstance(await seeMachine(front, resource)) }),
      }),
      start: power("start"),
      restart: power("restart"),
      powerOff: power((call) => (isAsked(call, "skipShutdown") ? "cut" : "powerOff")),
      deallocate: power((call) => deallocation(call)),
      retrieveBootDiagnosticsData: bootLogAction(front),
      openConsole: consoleAction(front),
      setAutostart: autostartAction(front),
      exportDefinition: definitionAction(front),
      ...Object.fromEntries(Object.entries(refusedActions).map(([name, reason]) => [name, refusal(name, reason)])),
    },
  });
}

/** One job at a time for a machine and for the item that it came from. */
async function submit(
  front: ReplicationFront,
  call: ArmCall,
  resource: Resource,
  wish: { readonly kind: "MachinePower"; readonly wish: PowerWish } | { readonly kind: "MachineRemoval" },
): Promise<string> {
  const landed = landedMachineShape.parse(resource.properties);
  requireHere(landed, front.place);
  return await front.engine.submit({
    kind: wish.kind,
    scope: resource.id.key,
    targetId: resource.id.text,
    targetName: resource.id.name,
    lockKey: lockKeyOf(landed, resource),
    actor: call.caller.name,
    parameters: { machineId: resource.id.text, ...(wish.kind === "MachinePower" ? { wish: wish.wish } : {}) },
  });
}

function lockKeyOf(landed: LandedMachine, { id }: Resource): string {
  return landed.purpose === "made" ? id.key : parseResourceId(landed.itemId).key;
}

/** A switch of the query. One that says neither yes nor no is refused: to guess would cut a machine off, or not. */
function isAsked({ query, id }: ArmCall, name: string): boolean {
  const value = query[name.toLowerCase()]?.toLowerCase();
  if (value === undefined || value === "false") return false;
  if (value === "true") return true;
  throw new ArmFault(
    "InputInvalid",
    "InvalidRequestContent",
    `could not command the machine ${id.name}: ${name} is neither true nor false`,
    {
      evidence: { [name]: value.slice(0, 100) },
      target: name,
    },
  );
}

function deallocation(call: ArmCall): PowerWish {
  const wish = isAsked(call, "forceDeallocate") ? "cutAndDeallocate" : "deallocate";
  if (!isAsked(call, "hibernate")) return wish;
  throw new Fault("OperationNotSupported", `could not hibernate the machine ${call.id.name}: memory is not kept here`, {
    evidence: { hibernate: "true" },
    action: "call deallocate without hibernate",
  });
}

function refuseChanges(call: ArmCall, patch: object, envelope: object): void {
  const fields = Object.keys(patch).map((name) => `properties.${name}`);
  const beside = Object.keys(envelope).filter((name) => name !== "tags");
  if (fields.length === 0 && beside.length === 0) return;
  throw new Fault("InputInvalid", `could not change the machine ${call.id.name}: only its tags can be changed`, {
    evidence: { fields: [...fields, ...beside] },
    causes: ["a landed machine keeps the processors, memory, disks and cards of its source"],
    action: "send tags alone",
  });
}

function refusal(name: string, reason: string): ActionDefinition {
  return defineAction({
    isRefused: true,
    body: z.unknown(),
    run: async (call) => {
      throw new Fault("OperationNotSupported", `could not call ${name} on the machine ${call.id.name}: ${reason}`, {
        evidence: { operations: ["start", "restart", "powerOff", "deallocate", "retrieveBootDiagnosticsData"] },
      });
    },
  });
}

/** Azure gives addresses of blobs; here it is one of the hub itself, signed and good for as long as was asked. */
function bootLogAction({ services }: ReplicationFront): ActionDefinition {
  return defineAction({
    body: noBody,
    run: async (call, _body, resource) => {
      const minutes = Number(call.query["sasuriexpirationtimeinminutes"] ?? logMinutes.usual);
      if (!Number.isInteger(minutes) || minutes < logMinutes.least || minutes > logMinutes.most)
        throw new Fault("InputInvalid", "could not give the boot log: sasUriExpirationTimeInMinutes is out of range", {
          evidence: { given: String(minutes), least: logMinutes.least, most: logMinutes.most },
        });
      const lifeSeconds = minutes * 60;
      const wanted = { origin: call.origin, kind: bootLogKind, name: resource.id.text, lifeSeconds };
      const expiresAt = toTimestamp(services.clock.nowMs() + lifeSeconds * 1000);
      const serialConsoleLogBlobUri = await services.signedReads.addressOf(wanted);
      const consoleScreenshotBlobUri = await services.signedReads.addressOf({ ...wanted, kind: screenshotKind });
      return { kind: "done", body: { serialConsoleLogBlobUri, consoleScreenshotBlobUri, watariExpiresAt: expiresAt } };
    },
  });
}
