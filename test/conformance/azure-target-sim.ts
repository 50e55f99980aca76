// The Azure target for machines that have no processor: a clone by one edit, and an answer that stands on the disk.

import { systemClock as clock } from "../../src/base/clock.ts";
import { silentLog as log } from "../../src/base/log.ts";
import { systemRandom as random } from "../../src/base/random.ts";
import { Fault } from "../../src/contract/errors.ts";
import type { Disk } from "../../src/disk/disk.ts";
import { openAzureTarget, type AzureTarget } from "../../src/landing/azure/azure-target.ts";
import type { PrepareDisks } from "../../src/landing/azure/prepare-disks.ts";
import { simGuestMark } from "../../src/landing/sim/sim-target.ts";
import type { AzureFront } from "./azure-target-rig.ts";

const mebibyte = 2 ** 20;

/** The simulated guest needs one edit: its mark is checked, and a byte of its last block is changed. */
const prepare: PrepareDisks = async ({ disks, nics, signal }) => {
  const prepared = [];
  for (const { content: point, isBoot } of disks) {
    const head = Buffer.alloc(simGuestMark.length);
    if (isBoot) await point.read(0, head, signal);
    if (isBoot && head.toString() !== simGuestMark)
      throw new Fault("HydrationUnsupported", "could not hydrate the clone: no root filesystem was found", { evidence: { found: [] } });
    const changedAt = isBoot ? point.sizeBytes - 1 : -1;
    const isChanged = (offset: number, length: number): boolean => changedAt >= offset && changedAt < offset + length;
    const content: Disk = {
      sizeBytes: point.sizeBytes,
      read: async (offset, into, abort) => {
        await point.read(offset, into, abort);
        if (isChanged(offset, into.length)) into[changedAt - offset] = 0xed;
      },
      extents: async (offset, length) => [{ offset, length, kind: "data" }],
      [Symbol.asyncDispose]: async () => undefined,
    };
    prepared.push({ content, point, isChanged });
  }
  const hydration = { seconds: 0, changes: nics.map(({ guestName }) => `the card ${guestName} keeps its name`) };
  return { disks: prepared, hydration, [Symbol.asyncDispose]: async () => undefined };
};

export const boot = Buffer.alloc(3 * mebibyte);
boot.write(`${simGuestMark}hello`);

/** Over a front whose machines are simulated. */
export async function openSimTarget(front: AzureFront, stateFolder: string): Promise<AzureTarget> {
  const { azure, place, fetchBytes } = front;
  const isOn = async (name: string): Promise<boolean> => {
    const { statuses = [] } = await azure.compute.virtualMachines.instanceView(place.resourceGroup, name);
    return statuses.some(({ code }) => code === "PowerState/running");
  };
  return await openAzureTarget({
    ...{ stateFolder, azure, place, prepare, fetchBytes, clock, random, log },
    // The simulated machine listens nowhere: what it would say stands on its disk.
    ask: async ({ name, addresses }) =>
      addresses.length > 0 && (await isOn(name))
        ? { kind: "answered", status: 200, body: "hello", seconds: 0 }
        : { kind: "silent", seconds: 0, reason: "it is off" },
  });
}
