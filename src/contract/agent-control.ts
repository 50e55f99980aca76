// What an agent and its appliance say to each other over HTTPS on port 443: registration, state, orders and results.

import { z } from "zod";
import { networkCheckShape, networkChecksMax } from "./network-check.ts";
import { churnProfileShape, profileSecondsMax, profileSecondsMin } from "./churn-profile.ts";
import { countShape, digestShape, diskIdShape, faultReportShape, machineIdShape, orderIdShape, pointIdShape } from "./shapes.ts";

/** Raised by one for each change of this protocol; history in docs/design/agent-protocol.md. */
export const agentProtocolVersion = 2;

export const agentRoutes = {
  register: "/agent/v1/register",
  poll: "/agent/v1/poll",
  renew: "/agent/v1/renew",
} as const;

/** Most addresses of its appliance that an agent keeps. */
export const applianceWaysMax = 8;

/** Where an agent finds its appliance; who answers there proves itself by the site's authority. */
export const applianceWayShape = z.object({
  host: z.string().min(1).max(253),
  controlPort: z.number().int().min(1).max(65_535),
  dataPort: z.number().int().min(1).max(65_535),
});
export type ApplianceWay = z.infer<typeof applianceWayShape>;

/** What is digested of told ways. */
export function waysText(ways: readonly ApplianceWay[]): string {
  return ways.map(({ host, controlPort, dataPort }) => `${host} ${controlPort} ${dataPort}`).join("\n");
}

/** SHA-256 of waysText, hex. */
const waysDigestShape = z.string().regex(/^[0-9a-f]{64}$/);

/** A half-open byte range of a disk whose content is not replicated and reads as zeros (swap, for one). */
export const byteRangeShape = z.object({ offset: countShape, length: countShape });

/** One whole physical disk of the source. */
export const sourceDiskShape = z.object({
  diskId: diskIdShape,
  /** Kernel name at this boot ("sda"); for people only, never an identity. */
  deviceName: z.string().max(64),
  sizeBytes: countShape,
  /** What identifies it: "serial", "wwn", "gpt" (disk GUID) or "dos" (disk signature). */
  identifiedBy: z.enum(["serial", "wwn", "gpt", "dos"]),
  /** Holds the running root, /boot or the boot loader. */
  isBoot: z.boolean(),
  excluded: z.array(byteRangeShape).max(256),
});
export type SourceDisk = z.infer<typeof sourceDiskShape>;

export const machineFactsShape = z.object({
  hostname: z.string().max(253),
  /** SMBIOS system UUID, lower case: tells a clone from the original. */
  smbiosUuid: z.string().max(64),
  /** /etc/machine-id. */
  osMachineId: z.string().max(64),
  /** /proc/sys/kernel/random/boot_id: changes at each boot. */
  bootId: z.string().max(64),
  osName: z.string().max(200),
  kernelRelease: z.string().max(200),
  firmware: z.enum(["bios", "efi"]),
  cpuCount: countShape,
  memoryBytes: countShape,
  addresses: z.array(z.string().max(64)).max(64),
  nics: z.array(z.object({ name: z.string().max(64), mac: z.string().max(32) })).max(64),
  disks: z.array(sourceDiskShape).max(64),
});
export type MachineFacts = z.infer<typeof machineFactsShape>;

/** proof = hex HMAC-SHA-256 keyed with the site passphrase, over the UTF-8 text of csrPem: the passphrase itself is never sent. */
export const registerRequestShape = z.object({
  protocolVersion: countShape,
  agentVersion: z.string().max(40),
  csrPem: z.string().max(8000),
  proof: z.string().regex(/^[0-9a-f]{64}$/),
  facts: machineFactsShape,
});

export const registerResponseShape = z.object({
  machineId: machineIdShape,
  certificatePem: z.string().max(16_000),
  caPem: z.string().max(16_000),
  dataPort: countShape,
});
export type RegisterResponse = z.infer<typeof registerResponseShape>;

/** The next certificate of a machine whose present one proves who asks; either is good until the next was used. */
export const renewRequestShape = z.object({
  protocolVersion: countShape,
  machineId: machineIdShape,
  csrPem: z.string().max(8000),
});

export const renewResponseShape = z.object({ certificatePem: z.string().max(16_000) });
export type RenewResponse = z.infer<typeof renewResponseShape>;

/** How changes are tracked on a disk, best first; `reason` says why no better rung is used. */
const trackingShape = z.object({
  rung: z.enum(["ebpf", "tracefs", "checksum", "full"]),
  reason: z.string().max(400),
});

export const replicationPolicyShape = z.object({
  /** Seconds between recovery points. */
  pointIntervalSeconds: z.number().min(1).max(86_400),
  /** Longest time that filesystems may stay frozen for a point, milliseconds. */
  freezeMsMax: z.number().int().min(50).max(10_000),
  /** For how long points are kept, up to 15 days; 0 keeps the newest alone. Without it none goes. For the appliance; agents have no use for it. */
  historyMinutes: z.number().int().min(0).max(21_600).optional(),
  /** Minutes between points for which the guest's scripts bring its applications to rest; none are made without it or with 0. */
  applicationIntervalMinutes: z.number().min(0).max(1440).optional(),
  /** Machines of one group make their points at one moment, which the appliance has them agree upon. */
  group: z.object({ groupId: z.guid(), name: z.string().max(200) }).optional(),
});
export type ReplicationPolicy = z.infer<typeof replicationPolicyShape>;

/** One call of a script of the guest around an application-consistent point. */
export const scriptRunShape = z.object({
  script: z.string().max(255),
  phase: z.enum(["pre", "post"]),
  /** Absent when it was killed or could not be started. */
  exitCode: z.number().int().optional(),
  hasTimedOut: z.boolean(),
  tookMs: z.number().nonnegative(),
  /** The end of what it printed on both streams. */
  output: z.string().max(1000),
});
export type ScriptRun = z.infer<typeof scriptRunShape>;

/** What the standstill of a machine's writers for one point was made of. */
export const pauseShape = z.object({
  /** Freezes that were needed; all but the last were given up because they would have become too long. */
  freezeCount: countShape,
  /** In the kernel's calls that freeze: what was still in memory is written out there. */
  freezeMs: z.number().nonnegative(),
  /** Reading what changed last into memory. */
  readMs: z.number().nonnegative(),
  /** Waiting for the other machines of a group. */
  waitMs: z.number().nonnegative(),
  heldBytes: countShape,
});
export type Pause = z.infer<typeof pauseShape>;

/** How bringing the applications to rest went, of a point for which that was asked. */
export const applicationOutcomeShape = z.object({
  /** false: the point is crash-consistent, and `fault` says why. */
  isConsistent: z.boolean(),
  /** Also of a consistent point, when a script failed to end the rest. */
  fault: faultReportShape.optional(),
  scripts: z.array(scriptRunShape).max(16),
});
export type ApplicationOutcome = z.infer<typeof applicationOutcomeShape>;

/** Orders from the appliance. An order given twice (same orderId) is carried out once and answered with the same result. */
export const agentOrderShape = z.discriminatedUnion("kind", [
  /** Start continuous replication, or change its policy. */
  z.object({
    kind: z.literal("replicate"),
    orderId: orderIdShape,
    policy: replicationPolicyShape,
    /** Disks that are not replicated; those of before unless given. An agent that does not know the word shows it by the disks of its state. */
    excludedDiskIds: z.array(diskIdShape).max(64).optional(),
  }),
  /**
   * Make a recovery point now. Result: pointId. With isJoin the other machines of the group are making theirs: the next point of the
   * interval is made now, and the result does not wait for it; an agent that does not know groups makes a point of its own.
   */
  z.object({ kind: z.literal("point"), orderId: orderIdShape, isJoin: z.boolean().optional() }),
  /** Read every block of the source again, compare with the replica, repair what differs, remember digests for `quiesce`. */
  z.object({ kind: z.literal("verify"), orderId: orderIdShape }),
  /**
   * Final point: freeze every filesystem, send the last changes, compute the root of each source disk, seal, and stay
   * frozen until `release` or until holdSecondsMax have passed (then thaw, and the quiesce is void). Result: point and roots.
   */
  z.object({ kind: z.literal("quiesce"), orderId: orderIdShape, holdSecondsMax: z.number().min(5).max(3600) }),
  /** Thaw after a quiesce: the migration was called off. */
  z.object({ kind: z.literal("release"), orderId: orderIdShape }),
  /**
   * Count for a while what is written, without replicating: trackers are on, nothing is sent. Only to an agent whose state names the
   * feature "profile", and only while it does not replicate; `replicate` and `stop` end it. Result: profile.
   */
  z.object({
    kind: z.literal("profile"),
    orderId: orderIdShape,
    seconds: z.number().int().min(profileSecondsMin).max(profileSecondsMax),
  }),
  /** Tries the agent's ways to its appliance. Only to an agent whose state names the feature "checkNetwork". Result: checks. */
  z.object({ kind: z.literal("checkNetwork"), orderId: orderIdShape }),
  /** Stop replication and tracking; the agent stays registered. */
  z.object({ kind: z.literal("stop"), orderId: orderIdShape }),
  /** Stop, and remove the agent with everything it has put on the machine. */
  z.object({ kind: z.literal("uninstall"), orderId: orderIdShape }),
]);
export type AgentOrder = z.infer<typeof agentOrderShape>;

const diskRootShape = z.object({ diskId: diskIdShape, root: digestShape });

export const orderResultShape = z.discriminatedUnion("outcome", [
  z.object({
    outcome: z.literal("done"),
    orderId: orderIdShape,
    pointId: pointIdShape.optional(),
    /** Merkle roots that the agent computed from what it read, excluded ranges as zeros. */
    sourceRoots: z.array(diskRootShape).max(64).optional(),
    /** Blocks that `verify` found different from the replica and repaired. */
    repairedBlockCount: countShape.optional(),
    /** The first of them that nobody was seen to write. */
    repairedBlocks: z
      .array(z.object({ diskId: diskIdShape, block: countShape }))
      .max(16)
      .optional(),
    frozenMs: z.number().nonnegative().optional(),
    profile: churnProfileShape.optional(),
    checks: z.array(networkCheckShape).max(networkChecksMax).optional(),
  }),
  z.object({ outcome: z.literal("failed"), orderId: orderIdShape, fault: faultReportShape }),
]);
export type OrderResult = z.infer<typeof orderResultShape>;

export const agentStateShape = z.object({
  phase: z.enum(["idle", "initial", "delta", "quiesced", "stopped", "failed"]),
  disks: z
    .array(
      z.object({ diskId: diskIdShape, tracking: trackingShape, dirtyBytes: countShape, copiedBytes: countShape, sizeBytes: countShape }),
    )
    .max(64),
  /** Totals since the agent's start. */
  readBytes: countShape,
  sentBytes: countShape,
  residentBytes: countShape,
  cpuSeconds: z.number().nonnegative(),
  /** Of the ways that the appliance told last, once they are kept. */
  waysDigest: waysDigestShape.optional(),
  /** What the agent understands beyond the first version: "profile", "checkNetwork", "renewCertificate", "ways". */
  features: z.array(z.string().max(40)).max(16).optional(),
  /** What the lanes of the sender spent their time on since the agent's start. */
  laneMs: z.object({ read: countShape, work: countShape, wait: countShape, pause: countShape }).optional(),
  pointCount: countShape,
  lastPointId: pointIdShape.optional(),
  lastFrozenMs: z.number().nonnegative().optional(),
  fault: faultReportShape.optional(),
});
export type AgentState = z.infer<typeof agentStateShape>;

/** Sent again and again; the appliance holds the answer up to waitSeconds when it has no order. */
export const pollRequestShape = z.object({
  protocolVersion: countShape,
  machineId: machineIdShape,
  agentVersion: z.string().max(40),
  facts: machineFactsShape,
  state: agentStateShape,
  results: z.array(orderResultShape).max(32),
  waitSeconds: z.number().min(0).max(30),
});
export type PollRequest = z.infer<typeof pollRequestShape>;

export const pollResponseShape = z.object({
  orders: z.array(agentOrderShape).max(32),
  /** Units that the agent may have under way; 8 at an appliance that does not say. */
  unitsInFlightMax: z.number().int().min(1).max(1024).optional(),
  /** By the appliance's clock it is time for the machine's next certificate: the guest's own clock is not asked. */
  isRenewalDue: z.boolean().optional(),
  /** Where the appliance is and will be, when that is not what the agent's digest says. Kept behind the way in use. */
  ways: z.array(applianceWayShape).min(1).max(applianceWaysMax).optional(),
});
export type PollResponse = z.infer<typeof pollResponseShape>;
