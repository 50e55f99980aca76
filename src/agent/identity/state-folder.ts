// The agent's folder of durable state: identity, replication and orders as JSON files, written whole or not at all.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { Fault } from "../../contract/errors.ts";
import {
  agentOrderShape,
  applianceWayShape,
  applianceWaysMax,
  byteRangeShape,
  orderResultShape,
  replicationPolicyShape,
} from "../../contract/agent-control.ts";
import { countShape, diskIdShape, machineIdShape, orderIdShape, pointIdShape } from "../../contract/shapes.ts";

export const identityShape = z.object({
  machineId: machineIdShape,
  applianceHost: z.string().min(1).max(253),
  controlPort: countShape,
  dataPort: countShape,
  /** Tried in this order when the one above does not answer. */
  otherWays: z.array(applianceWayShape).max(applianceWaysMax).optional(),
  /** Of the machine that was registered: another value means that this is a copy. */
  smbiosUuid: z.string().max(64),
  osMachineId: z.string().max(64),
});
export type Identity = z.infer<typeof identityShape>;

/** A way that a person gave; tried when no other answers, and then removed. */
export const givenWayShape = applianceWayShape;

const keyedCertificateShape = z.object({ keyPem: z.string().max(8000), certificatePem: z.string().max(16_000) });
export type KeyedCertificate = z.infer<typeof keyedCertificateShape>;

/** Certificates since the registration, in one file: whatever is cut off, one state or the next is found. */
export const renewalShape = z.object({
  /** SHA-256 of the certificate of the registration that this goes on from; of another it says nothing. */
  registered: z.string().max(64),
  /** What the next certificate was or will be asked with. */
  draft: z.object({ csrPem: z.string().max(8000), keyPem: z.string().max(8000) }).optional(),
  /** In use; the registration's own while there is none. */
  newest: keyedCertificateShape.optional(),
  /** The newest was not yet used: this one is as good until it is. */
  before: keyedCertificateShape.optional(),
});
export type Renewal = z.infer<typeof renewalShape>;

const trackedDisksShape = z
  .array(
    z.object({
      diskId: diskIdShape,
      sizeBytes: countShape,
      excluded: z.array(byteRangeShape).max(256),
      session: z.string().max(64),
      /** Absent in what older agents wrote: then the disk may have been away. */
      attachment: z.string().max(64).optional(),
    }),
  )
  .max(64);

export const replicationStateShape = z.object({
  policy: replicationPolicyShape.optional(),
  /** Disks that are not replicated. */
  excludedDiskIds: z.array(diskIdShape).max(64).optional(),
  /** Newest point that is known to be sealed, and what its disks were. */
  base: z.object({ pointId: pointIdShape, bootId: z.string().max(64), disks: trackedDisksShape }).optional(),
  /** A pass over these whole disks was begun, tracked from its begin on, and no point was sealed since. */
  passing: z.object({ bootId: z.string().max(64), disks: trackedDisksShape }).optional(),
});
export type ReplicationState = z.infer<typeof replicationStateShape>;

export const orderBookShape = z.object({
  /** Carried out, oldest first. */
  results: z.array(orderResultShape).max(64),
  /** Begun and not ended when this was written. */
  begun: z.array(agentOrderShape).max(32),
  /** Results that the appliance has not yet received. */
  untold: z.array(orderIdShape).max(96),
});

/** A file of the folder; undefined when there is none. A file that cannot be understood is a Fault, never taken for none. */
export async function readState<T>(folder: string, name: string, shape: z.ZodType<T>): Promise<T | undefined> {
  const path = join(folder, name);
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  if (text === undefined) return undefined;
  try {
    return shape.parse(JSON.parse(text));
  } catch (error) {
    throw new Fault("DataDamaged", `could not read the agent's state file ${name}: it is not what the agent wrote`, {
      action: `remove ${path}; the agent then compares the whole disks once`,
      evidence: { path },
      cause: error,
    });
  }
}

export async function writeState(folder: string, name: string, value: unknown): Promise<void> {
  await writeFileAtomic(join(folder, name), `${JSON.stringify(value, undefined, 1)}\n`);
}

export const stateFiles = {
  identity: "identity.json",
  replication: "replication.json",
  orders: "orders.json",
  key: "key.pem",
  certificate: "certificate.pem",
  authority: "authority.pem",
  renewal: "renewal.json",
  givenWay: "given-way.json",
} as const;
