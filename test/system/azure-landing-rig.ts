// The Azure target over a hub of its own kind: real clones, real uploads, and the hub's own QEMU behind the front.

import { systemClock as clock } from "../../src/base/clock.ts";
import { silentLog, type Log } from "../../src/base/log.ts";
import { systemRandom as random } from "../../src/base/random.ts";
import { parseDiskId } from "../../src/contract/ids.ts";
import { computeRoot } from "../../src/disk/compute-root.ts";
import { openFileDisk } from "../../src/disk/file-disk.ts";
import type { EphemeralFacts } from "../../src/hub/hub-command.ts";
import { openAzureTarget, type AzureTarget } from "../../src/landing/azure/azure-target.ts";
import { createPreparer } from "../../src/landing/azure/prepare-disks.ts";
import { probeHttp } from "../../src/landing/qemu/http-probe.ts";
import type { LaunchSpec } from "../../src/landing/target.ts";
import { openNbdServer } from "../../src/nbd/server.ts";
import { openAzureFront } from "../conformance/azure-target-rig.ts";
import { guest } from "./guest-image.ts";

export interface AzureTrial {
  readonly facts: EphemeralFacts;
  readonly stateFolder: string;
  readonly image: string;
  /** Port of the host that leads to the guest's. */
  readonly hostPort: number;
  /** Tells both programs' resources as one installation's. */
  readonly owner: string;
}

export interface OpenTrial extends AsyncDisposable {
  readonly target: AzureTarget;
  readonly spec: LaunchSpec;
}

export async function openTrial({ facts, stateFolder, image, hostPort, owner }: AzureTrial, log: Log = silentLog): Promise<OpenTrial> {
  await using opening = new AsyncDisposableStack();
  const front = opening.use(await openAzureFront(facts, { name: "tests", cidr: "10.77.0.0/24" }));
  const content = opening.use(await openFileDisk(image, { access: "read" }));
  const { azure, fetchBytes } = front;
  const target = opening.use(
    await openAzureTarget({
      ...{ stateFolder, azure, fetchBytes, clock, random, log, place: { ...front.place, owner } },
      prepare: createPreparer({
        exportDisk: async (disk, { socketPath, exportName }) =>
          await openNbdServer({
            listen: { kind: "unix", path: socketPath },
            exports: [{ name: exportName, access: "read-only", disk }],
            clock,
            log: silentLog,
          }),
        clock,
      }),
      ask: async (order, signal) => await probeHttp({ ...order, addresses: [`127.0.0.1:${hostPort}`] }, clock, signal),
    }),
  );
  const spec: LaunchSpec = {
    ...{ name: "web", cpuCount: 2, memoryBytes: 512 * 2 ** 20, firmware: "bios", network: { kind: "isolated" } },
    disks: [{ diskId: parseDiskId("boot"), isBoot: true, content, root: await computeRoot(content) }],
    nics: [{ mac: guest.mac, guestName: guest.nicName, address: "10.77.0.20/24" }],
  };
  const closing = opening.move();
  return { target, spec, [Symbol.asyncDispose]: async () => await closing.disposeAsync() };
}
