// A managed disk of a simulated hub, uploaded and ready to make a machine of.

import assert from "node:assert/strict";
import { simGuestMark } from "../../../landing/sim/sim-target.ts";
import { createVhdFooter, vhdFooterBytes } from "../../../landing/vhd-footer.ts";
import { parseResourceId } from "../../api/resource-id.ts";
import type { SimHub } from "./sim-hub.ts";
import { simGroup } from "./sim-hub.ts";

const sizeBytes = 1 << 20;

/** Its content is written as the signed address would have it written. */
export async function uploadSimDisk({ call, services }: Pick<SimHub, "call" | "services">, name: string): Promise<void> {
  const path = `${simGroup}/providers/Microsoft.Compute/disks/${name}`;
  const creationData = { createOption: "Upload", uploadSizeBytes: sizeBytes + vhdFooterBytes };
  const done = await call("PUT", path, { location: "sim", properties: { creationData, osType: "Linux", hyperVGeneration: "V1" } });
  assert.ok(done.status < 300, JSON.stringify(done.body));
  await call("POST", `${path}/beginGetAccess`, { access: "Write", durationInSeconds: 60 });
  await services.managedDisks.withContent(parseResourceId(path), async (content) => {
    await content.write(0, Buffer.from(`${simGuestMark}made`));
    await content.write(sizeBytes, createVhdFooter({ sizeBytes, timeMs: services.clock.nowMs(), uniqueId: services.random.bytes(16) }));
    await content.flush();
  });
  await call("POST", `${path}/endGetAccess`, {});
}
