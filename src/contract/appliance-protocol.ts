// What an appliance and its hub say to each other over HTTPS through the vault's private endpoint.

import { z } from "zod";
import {
  agentStateShape,
  applicationOutcomeShape,
  machineFactsShape,
  orderResultShape,
  pauseShape,
  replicationPolicyShape,
} from "./agent-control.ts";
import { profileSecondsMax, profileSecondsMin } from "./churn-profile.ts";
import { shownDiskShape } from "./disk-choice.ts";
import { limitsChangeShape, limitsStateShape } from "./line-limits.ts";
import { machineFlowShape, modeChangeShape } from "./machine-flow.ts";
import {
  applianceIdShape,
  countShape,
  digestShape,
  diskIdShape,
  faultReportShape,
  machineIdShape,
  orderIdShape,
  pointIdShape,
  timestampShape,
  vaultIdShape,
} from "./shapes.ts";

/**
 * Raised by one for each change of this protocol. 1: the first. 2: disks are chosen (setDisks, and with protect), agents are updated
 * (updateAgent); an appliance answers an order that it does not know with ProtocolVersionUnsupported. 3: vCenters are added, changed and
 * removed by order (putVcenter, removeVcenter), machines that no vCenter shows are added (addMachine), and certificates are renewed (the route
 * certificate, the order renewCertificate), machines go from one appliance to another (adopt, forget), telemetry tells of the appliance's machine.
 * 4: a vault has keys of several generations (the route vaultKeys, the order takeVaultKeys, keys in the answer to a registration); lines are
 * limited (changeLimits), machines profiled (profileMachine) and ways checked (checkNetwork) by order, telemetry tells of limits.
 */
export const applianceProtocolVersion = 4;

/** Which of the vault's five private names serves a route; the hub answers 404 for a route under another name. */
export const applianceRoutes = {
  /** id1. First call, authorised by the registration key; gives the client certificate. */
  register: { service: "id1", path: "/appliance/v1/register" },
  /** id1. A new client certificate. The one before holds until the new one was used once, and never after. */
  certificate: { service: "id1", path: "/appliance/v1/certificate" },
  /** id1. The keys of the vault by generation, those that are destroyed or about to be left out. Since version 4. */
  vaultKeys: { service: "id1", path: "/appliance/v1/vault-keys" },
  /** id1. A fresh storage grant before the old one ends. */
  storageGrant: { service: "id1", path: "/appliance/v1/storage-grant" },
  /** rcm1. Long poll: state and results out, orders in. */
  poll: { service: "rcm1", path: "/appliance/v1/poll" },
  /** srs1. What vCenters show: whole inventory, replaces the earlier one. */
  inventory: { service: "srs1", path: "/appliance/v1/inventory" },
  /** srs1. Recovery points sealed since the last call; idempotent by pointId. */
  points: { service: "srs1", path: "/appliance/v1/points" },
  /** tel1. Health and counters. */
  telemetry: { service: "tel1", path: "/appliance/v1/telemetry" },
  /** prot2. Progress of replication per machine. */
  progress: { service: "prot2", path: "/appliance/v1/progress" },
} as const;
export const privateServices = ["id1", "rcm1", "srs1", "tel1", "prot2"] as const;
export type PrivateService = (typeof privateServices)[number];

/** The file that an operator carries to the appliance. Works once, for 5 days. */
export const registrationKeyShape = z.object({
  format: z.literal("watari-registration-key-1"),
  vaultId: vaultIdShape,
  vaultResourceId: z.string().max(500),
  /** Full private name of each of the five services. */
  services: z.record(z.enum(privateServices), z.string().max(253)),
  /** Names that must resolve to private addresses, the storage account's included. */
  privateNames: z.array(z.string().max(253)).max(64),
  /** Address ranges (CIDR) in which those answers must lie. */
  privateRanges: z.array(z.string().max(64)).max(16),
  /** Names that go by the proxy. */
  publicNames: z.array(z.string().max(253)).max(64),
  hubCaPem: z.string().max(16_000),
  keyId: z.string().max(64),
  /** One-time secret, base64url, 32 bytes. */
  secret: z.string().max(64),
  expiresAt: timestampShape,
});
export type RegistrationKey = z.infer<typeof registrationKeyShape>;

/** proof = hex HMAC-SHA-256 keyed with the secret, over the UTF-8 text of csrPem. */
export const applianceRegisterRequestShape = z.object({
  protocolVersion: countShape,
  applianceVersion: z.string().max(40),
  name: z.string().max(63),
  keyId: z.string().max(64),
  csrPem: z.string().max(8000),
  proof: z.string().regex(/^[0-9a-f]{64}$/),
});

export const storageGrantShape = z.object({
  /** "https://<account>.blob.<domain>". */
  accountUrl: z.string().max(300),
  container: z.string().max(63),
  /** Shared access signature with leading "?": create, read, write, list, delete on this container only. Secret. */
  sas: z.string().max(1000),
  expiresAt: timestampShape,
});
export type StorageGrant = z.infer<typeof storageGrantShape>;

/** Most generations of a vault's key that are not destroyed. */
export const keyGenerationsMax = 64;
export const vaultKeysShape = z.object({
  /** The one that new objects are sealed with. */
  current: countShape,
  /** base64, 32 bytes each. Secret. */
  keys: z
    .array(z.object({ generation: countShape, key: z.string().max(64) }))
    .min(1)
    .max(keyGenerationsMax),
});
export type SentVaultKeys = z.infer<typeof vaultKeysShape>;

export const applianceRegisterResponseShape = z.object({
  applianceId: applianceIdShape,
  certificatePem: z.string().max(16_000),
  caPem: z.string().max(16_000),
  vault: z.object({
    vaultId: vaultIdShape,
    keyId: z.string().max(64),
    /** Key of generation 1, or the current one, base64, 32 bytes. Secret. */
    key: z.string().max(64),
    /** All of them; absent from hubs before version 4, whose vaults have generation 1 alone. */
    keys: vaultKeysShape.optional(),
  }),
  storage: storageGrantShape,
});
export type ApplianceRegisterResponse = z.infer<typeof applianceRegisterResponseShape>;

export const certificateRequestShape = z.object({ csrPem: z.string().max(8000) });
export const certificateResponseShape = z.object({ certificatePem: z.string().max(16_000), caPem: z.string().max(16_000) });

/** A machine as a vCenter shows it. */
export const discoveredMachineShape = z.object({
  /** vCenter's instance UUID. */
  infrastructureId: z.string().max(64),
  vcenterId: z.string().max(64),
  name: z.string().max(255),
  smbiosUuid: z.string().max(64),
  guestOs: z.string().max(255),
  powerState: z.enum(["poweredOn", "poweredOff", "suspended"]),
  cpuCount: countShape,
  memoryBytes: countShape,
  firmware: z.enum(["bios", "efi"]),
  addresses: z.array(z.string().max(64)).max(64),
  disks: z
    .array(
      z.object({ label: z.string().max(255), sizeBytes: countShape, controller: z.string().max(100), uuid: z.string().max(64).optional() }),
    )
    .max(64),
  nics: z
    .array(z.object({ label: z.string().max(255), mac: z.string().max(32), network: z.string().max(255), adapter: z.string().max(100) }))
    .max(64),
});
export type DiscoveredMachine = z.infer<typeof discoveredMachineShape>;

export const vcenterSummaryShape = z.object({
  vcenterId: z.string().max(64),
  name: z.string().max(63),
  host: z.string().max(253),
  port: countShape,
  /** Name of the credential on the appliance; the credential itself never leaves it. */
  runAsAccountId: z.string().max(64),
  status: z.enum(["connected", "failed"]),
  fault: faultReportShape.optional(),
  lastDiscoveredAt: timestampShape.optional(),
});

/** The vcenterId of machines that were added by hand and that no vCenter knows. */
export const byHandId = "by-hand";

const runAsAccountShape = z.object({ accountId: z.string().max(64), name: z.string().max(63), kind: z.enum(["vcenter", "linux"]) });

export const inventoryShape = z.object({
  vcenters: z.array(vcenterSummaryShape).max(32),
  runAsAccounts: z.array(runAsAccountShape).max(256),
  machines: z.array(discoveredMachineShape).max(20_000),
});
export type Inventory = z.infer<typeof inventoryShape>;

/** Where the vault's truth about a point is told to the hub's catalogue. */
export const sealedPointReportShape = z.object({
  pointId: pointIdShape,
  machineId: machineIdShape,
  timeMs: countShape,
  sealedAt: timestampShape,
  consistency: z.enum(["crash", "application", "final"]),
  disks: z.array(z.object({ diskId: diskIdShape, sizeBytes: countShape, root: digestShape, isBoot: z.boolean() })).max(64),
  readBytes: countShape,
  sentBytes: countShape,
  storedBytes: countShape,
  frozenMs: z.number().nonnegative(),
  pause: pauseShape.optional(),
  mode: z.enum(["full", "delta", "checksum"]),
  /** Of a point for which the guest's applications were to rest. */
  application: applicationOutcomeShape.optional(),
  /** Of a point that shows the common moment of a group. It is the group's only when each of the members has its own of it. */
  group: z
    .object({
      groupId: z.guid(),
      groupPointId: z.guid(),
      /** By the appliance's clock, the same for all members. */
      timeMs: countShape,
      memberCount: countShape,
    })
    .optional(),
  /** Why a machine of a group made this point for itself. */
  groupFault: faultReportShape.optional(),
});
export type SealedPointReport = z.infer<typeof sealedPointReportShape>;

/** Body of a call to `points`. Every route that only takes something in answers 200 and {}; a refusal is its status and one FaultReport. */
export const sealedPointsShape = z.object({
  points: z.array(sealedPointReportShape).max(100),
  /** Points that retention has removed from the vault. */
  removedPointIds: z.array(pointIdShape).max(1000).optional(),
});

const orderHead = {
  orderId: orderIdShape,
  /**
   * Rises each time a hub takes a job. An appliance that has seen a higher one for the same machine refuses the order with StaleOrder;
   * absent in orders that no job gave.
   */
  fencingNumber: countShape.optional(),
  /** W3C trace context of the job's step, for who traces on. An older appliance does not read it. */
  traceparent: z
    .string()
    .regex(/^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/)
    .optional(),
};

/** How a vCenter's certificate is trusted beyond the authorities that the appliance knows. */
export const vcenterTrustShape = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("authority"), caPem: z.string().max(16_000) }),
  /** SHA-256 of the certificate, hex with or without colons. */
  z.object({ kind: z.literal("thumbprint"), sha256: z.string().max(100) }),
]);

/** Orders from the hub. An order given twice (same orderId) is carried out once and answered with the same result. */
export const applianceOrderShape = z.discriminatedUnion("kind", [
  /** Prerequisites over SSH, push install, registration, then replication by this policy. Result carries machineId and facts. */
  z.object({
    kind: z.literal("protect"),
    ...orderHead,
    infrastructureId: z.string().max(64),
    runAsAccountId: z.string().max(64),
    /** Address to reach the guest by SSH; one of those discovered unless given. */
    address: z.string().max(253).optional(),
    policy: replicationPolicyShape,
    /** Disks that are not replicated, as the inventory shows them. One of version 1 does not know the word: the first point shows it. */
    excludedDisks: z.array(shownDiskShape).max(64).optional(),
  }),
  z.object({ kind: z.literal("setPolicy"), ...orderHead, machineId: machineIdShape, policy: replicationPolicyShape }),
  z.object({ kind: z.literal("point"), ...orderHead, machineId: machineIdShape }),
  z.object({ kind: z.literal("verify"), ...orderHead, machineId: machineIdShape }),
  z.object({ kind: z.literal("quiesce"), ...orderHead, machineId: machineIdShape, holdSecondsMax: z.number() }),
  z.object({ kind: z.literal("release"), ...orderHead, machineId: machineIdShape }),
  /** Power the source off through its vCenter and confirm it. Result: done only when the power state was read back as off. */
  z.object({ kind: z.literal("fence"), ...orderHead, machineId: machineIdShape }),
  /** Power the source on again, for a rollback. */
  z.object({ kind: z.literal("unfence"), ...orderHead, machineId: machineIdShape }),
  /**
   * Stop replication; with removeAgent the agent is uninstalled when it answers within 60 s. With removePoints every point of the
   * machine leaves the vault (only the appliance writes there); done only when they are gone. A machine that is unknown is no fault.
   */
  z.object({
    kind: z.literal("unprotect"),
    ...orderHead,
    machineId: machineIdShape,
    removeAgent: z.boolean(),
    removePoints: z.boolean().optional(),
  }),
  z.object({ kind: z.literal("discover"), ...orderHead }),
  /** All disks but these are replicated from the next point on. Since version 2. */
  z.object({ kind: z.literal("setDisks"), ...orderHead, machineId: machineIdShape, excludedDiskIds: z.array(diskIdShape).max(64) }),
  /**
   * Puts the appliance's own agent in the place of the machine's, by the account given or the one that installed it; what the agent knows
   * stays. Done when the new agent has spoken, and then agentVersion is its version; a failed one leaves the old agent. Since version 2.
   */
  z.object({ kind: z.literal("updateAgent"), ...orderHead, machineId: machineIdShape, runAsAccountId: z.string().max(64).optional() }),
  /**
   * Adds a vCenter, or changes the one of this id. Done when a login has succeeded and the hub has the inventory with it; nothing is kept
   * otherwise. The credential is on the appliance, and so is the trust in a certificate unless it is given here: that of before for the
   * same host and port, else the authorities of the appliance. Since version 3.
   */
  z.object({
    kind: z.literal("putVcenter"),
    ...orderHead,
    vcenterId: z.string().min(1).max(64),
    name: z.string().min(1).max(63),
    host: z.string().min(1).max(253),
    port: z.number().int().min(1).max(65_535),
    runAsAccountId: z.string().max(64),
    trust: vcenterTrustShape.optional(),
  }),
  /** The vCenter and the machines that it shows are forgotten. Refused while one of them is protected; unknown is no fault. Since version 3. */
  z.object({ kind: z.literal("removeVcenter"), ...orderHead, vcenterId: z.string().min(1).max(64) }),
  /**
   * A machine that no vCenter shows. With an account it is looked at over SSH; without, only its SSH port is tried, and the agent tells
   * the rest later. Result: infrastructureId. The same address again is the same machine. Since version 3.
   */
  z.object({
    kind: z.literal("addMachine"),
    ...orderHead,
    name: z.string().min(1).max(255),
    address: z.string().min(1).max(253),
    runAsAccountId: z.string().max(64).optional(),
  }),
  /**
   * Takes a machine over from another appliance of the vault: its agent is told this appliance over SSH, is registered here under the
   * machine's id, and keeps what it knows of changes; its first point compares with the vault what this appliance cannot be sure of.
   * On a fault the agent stays with the appliance before. Also for one that was taken over already. Since version 3.
   */
  z.object({
    kind: z.literal("adopt"),
    ...orderHead,
    machineId: machineIdShape,
    infrastructureId: z.string().max(64),
    runAsAccountId: z.string().max(64),
    address: z.string().max(253).optional(),
    policy: replicationPolicyShape,
  }),
  /** The machine is another appliance's from now on: it is forgotten here, and nothing is done on it. Unknown is no fault. Since version 3. */
  z.object({ kind: z.literal("forget"), ...orderHead, machineId: machineIdShape }),
  /** Done when the new certificate was used. Result: certificateEndsAt. Since version 3. */
  z.object({ kind: z.literal("renewCertificate"), ...orderHead }),
  /**
   * Makes the vault's keys what the hub has now: asked for at the route vaultKeys, never in the order. Refused with StateConflict while
   * something that the appliance wrote is sealed with a key that would go. Result: vaultKeys. Since version 4.
   */
  z.object({ kind: z.literal("takeVaultKeys"), ...orderHead }),
  /** Changes how fast bytes may pass the appliance's lines. Result: limits, as they are then. Since version 4. */
  z.object({ kind: z.literal("changeLimits"), ...orderHead, change: limitsChangeShape }),
  /** Counts for a while what a machine that is not replicated writes. `machine` is its host name or id. Result: profile. Since version 4. */
  z.object({
    kind: z.literal("profileMachine"),
    ...orderHead,
    machine: z.string().min(1).max(255),
    seconds: z.number().int().min(profileSecondsMin).max(profileSecondsMax),
  }),
  /**
   * Tries every way that the appliance needs, hop by hop, and its rights on the storage account; of a machine, the ways of its agent. Result:
   * checks. Since version 4.
   */
  z.object({ kind: z.literal("checkNetwork"), ...orderHead, machineId: machineIdShape.optional() }),
]);
export type ApplianceOrder = z.infer<typeof applianceOrderShape>;

/** Progress of an order that runs longer than a poll. */
const orderProgressShape = z.object({ orderId: orderIdShape, percent: z.number().min(0).max(100), text: z.string().max(400) });

/** Same shape as an agent's result, with what only an appliance can say. */
export const applianceOrderResultShape = z.discriminatedUnion("outcome", [
  orderResultShape.options[0].extend({
    machineId: machineIdShape.optional(),
    facts: machineFactsShape.optional(),
    /** Of an agent that was updated. */
    agentVersion: z.string().max(40).optional(),
    /** Of a machine that was added. */
    infrastructureId: z.string().max(64).optional(),
    certificateEndsAt: timestampShape.optional(),
    limits: limitsStateShape.optional(),
    /** Of taken keys: which generations there are, and the one that is written with. */
    vaultKeys: z.object({ current: countShape, generations: z.array(countShape).max(keyGenerationsMax) }).optional(),
  }),
  orderResultShape.options[1],
]);
export type ApplianceOrderResult = z.infer<typeof applianceOrderResultShape>;

export const appliancePollRequestShape = z.object({
  protocolVersion: countShape,
  applianceId: applianceIdShape,
  results: z.array(applianceOrderResultShape).max(64),
  progress: z.array(orderProgressShape).max(64),
  waitSeconds: z.number().min(0).max(30),
  /** Nothing was heard of the answer before, or this process has not polled yet: orders that were given are given again at once. */
  isAnswerLost: z.boolean().optional(),
});
export const appliancePollResponseShape = z.object({ orders: z.array(applianceOrderShape).max(64) });

export const applianceProgressShape = z.object({
  machines: z
    .array(
      z.object({
        machineId: machineIdShape,
        infrastructureId: z.string().max(64).optional(),
        lastSeenAt: timestampShape,
        agentVersion: z.string().max(40),
        facts: machineFactsShape,
        state: agentStateShape,
        /** Absent from older appliances. */
        flow: machineFlowShape.optional(),
      }),
    )
    .max(2000),
  /** Since the telling before that was answered; those of older appliances are not told. */
  modeChanges: z.array(modeChangeShape).max(200).optional(),
});

/** Of the machine that the appliance runs on. */
const systemFiguresShape = z.object({
  /** Of all processors, over the last quarter of an hour. */
  cpuShare: z.number().min(0).max(1),
  /** Waiting and running processes for each processor, over the same time. */
  loadShare: z.number().nonnegative(),
  memoryBytes: countShape,
  memoryAvailableBytes: countShape,
  /** Of the file system that holds the spool. */
  diskBytes: countShape,
  diskAvailableBytes: countShape,
  /** To the storage account, since the telling before. */
  uploadedBytesPerSecond: z.number().nonnegative(),
  /** What the hub's clock shows beyond this one's; absent until the hub has answered once. */
  clockOffsetMs: z.number().int().optional(),
  osVersion: z.string().max(200),
  /** At which agents dial it. */
  address: z.string().max(64),
});
export type SystemFigures = z.infer<typeof systemFiguresShape>;

/** Most other appliances of its vault that one is told of. */
export const otherAppliancesMax = 32;

/** Another appliance of the vault, by what it told the hub last. */
const otherApplianceShape = z.object({
  applianceId: applianceIdShape,
  name: z.string().max(63),
  silentSeconds: z.number().nonnegative(),
  health: z.enum(["Normal", "Warning", "Critical"]),
  spoolBytes: countShape.optional(),
  spoolBytesMax: countShape.optional(),
  system: systemFiguresShape.optional(),
});
export type OtherAppliance = z.output<typeof otherApplianceShape>;

/** Answer to telemetry: by it an appliance knows how far off its clock is, and who else works for its vault. Older hubs tell neither. */
export const telemetryAnswerShape = z.looseObject({
  hubTime: timestampShape.optional(),
  others: z.array(otherApplianceShape).max(otherAppliancesMax).optional(),
});

export const telemetryShape = z.object({
  applianceVersion: z.string().max(40),
  spoolBytes: countShape,
  spoolBytesMax: countShape,
  residentBytes: countShape,
  healthErrors: z.array(faultReportShape).max(100),
  /** Absent from appliances before version 3. */
  system: systemFiguresShape.optional(),
  /** Absent from appliances before version 4. Of the machines' lines those that are limited. */
  lineLimits: limitsStateShape.optional(),
});
