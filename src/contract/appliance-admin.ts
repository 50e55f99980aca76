// What the command line says to the appliance that runs on the same machine, over a unix socket that only its user can open.

import { z } from "zod";
import {
  applianceIdShape,
  countShape,
  diskIdShape,
  faultReportShape,
  machineIdShape,
  orderIdShape,
  pointIdShape,
  timestampShape,
} from "./shapes.ts";
import { discoveredMachineShape, vcenterSummaryShape } from "./appliance-protocol.ts";
import { agentStateShape, applianceWayShape, applianceWaysMax } from "./agent-control.ts";
import { machineFlowShape } from "./machine-flow.ts";
import { churnProfileShape, profileSecondsMax, profileSecondsMin } from "./churn-profile.ts";
import { limitsChangeShape, limitsStateShape } from "./line-limits.ts";

/** In the appliance's state folder. */
export const adminSocketName = "admin.sock";

const nameShape = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/, "letters, digits, dot, hyphen, underscore, at most 63");

export const credentialShape = z.object({
  credentialId: z.string(),
  name: nameShape,
  kind: z.enum(["vcenter", "linux-password", "linux-key"]),
  userName: z.string().min(1).max(256),
  privilege: z.enum(["root", "sudo"]),
});

export const addCredentialShape = credentialShape.omit({ credentialId: true }).extend({
  /** Password, or the private key in PEM. */
  secret: z.string().min(1).max(32_000),
  /** Of an encrypted private key. */
  keyPassphrase: z.string().max(1024).optional(),
  /** Of an account with a key whose sudo asks for a password. */
  sudoPassword: z.string().max(1024).optional(),
});

export const addVcenterShape = z.object({
  name: nameShape,
  host: z.string().min(1).max(253),
  port: z.number().int().min(1).max(65_535).default(443),
  /** Name or id. */
  credential: z.string().min(1).max(64),
  caPem: z.string().max(16_000).optional(),
  /** SHA-256 of the certificate, hex with or without colons. */
  thumbprint: z.string().max(100).optional(),
});

const checkShape = z.object({
  name: z.string(),
  from: z.string(),
  to: z.string(),
  tried: z.string(),
  answer: z.string(),
  latencyMs: z.number(),
  verdict: z.enum(["pass", "fail", "skipped"]),
  repair: z.string(),
});

const shownPointShape = z.object({ pointId: pointIdShape, machineId: machineIdShape, time: timestampShape, consistency: z.string() });

const addMachineShape = z.object({
  /** Address at which SSH answers. */
  address: z.string().min(1).max(253),
  credential: z.string().min(1).max(64),
});

const applianceMachineShape = z.object({
  machineId: machineIdShape,
  infrastructureId: z.string().optional(),
  hostname: z.string(),
  isProtected: z.boolean(),
  lastSeenAt: timestampShape,
  agentVersion: z.string(),
  pointCount: countShape,
  state: agentStateShape.optional(),
  flow: machineFlowShape,
});

const applianceStatusShape = z.object({
  name: z.string(),
  version: z.string(),
  pid: countShape,
  controlPort: countShape,
  dataPort: countShape,
  registration: z.object({ applianceId: applianceIdShape, vaultResourceId: z.string() }).optional(),
  isHubReached: z.boolean(),
  vcenters: z.array(vcenterSummaryShape),
  machineCount: countShape,
  spoolBytes: countShape,
  spoolBytesMax: countShape,
  healthErrors: z.array(faultReportShape),
  machines: z.array(z.object({ machineId: machineIdShape, hostname: z.string(), flow: machineFlowShape })),
});

/** A machine whose agent knows what was announced, or does not yet. */
const toldMachineShape = z.object({ machineId: machineIdShape, hostname: z.string(), lastSeenAt: timestampShape });

const keyTextShape = z.object({ registrationKey: z.string().max(64_000) });
const nothing = z.object({});

/** Every route is POST, JSON both ways; a status other than 200 carries one FaultReport. */
export const adminRoutes = {
  status: { path: "/v1/status", request: nothing, response: applianceStatusShape },
  /** Changes nothing. Without a key it checks the way of the present registration. */
  check: { path: "/v1/check", request: keyTextShape.partial(), response: z.object({ checks: z.array(checkShape) }) },
  register: {
    path: "/v1/register",
    request: keyTextShape,
    response: z.object({ applianceId: applianceIdShape, vaultResourceId: z.string(), checks: z.array(checkShape) }),
  },
  /** Tells agents where this appliance will be, before it moves; an empty list takes that back. */
  announce: {
    path: "/v1/announce",
    request: z.object({ addresses: z.array(z.string().min(1).max(253)).max(applianceWaysMax) }),
    response: z.object({ ways: z.array(applianceWayShape), known: z.array(toldMachineShape), unknown: z.array(toldMachineShape) }),
  },
  passphrase: { path: "/v1/passphrase", request: nothing, response: z.object({ passphrase: z.string(), authorityPem: z.string() }) },
  addCredential: { path: "/v1/credentials/add", request: addCredentialShape, response: credentialShape },
  listCredentials: { path: "/v1/credentials/list", request: nothing, response: z.object({ credentials: z.array(credentialShape) }) },
  /** The login is tried before anything is kept. */
  addVcenter: { path: "/v1/vcenters/add", request: addVcenterShape, response: vcenterSummaryShape },
  listVcenters: { path: "/v1/vcenters/list", request: nothing, response: z.object({ vcenters: z.array(vcenterSummaryShape) }) },
  discover: { path: "/v1/discover", request: nothing, response: z.object({ machines: z.array(discoveredMachineShape) }) },
  /** A machine that no vCenter shows: it is looked at over SSH. */
  addMachine: { path: "/v1/machines/add", request: addMachineShape, response: discoveredMachineShape },
  listMachines: { path: "/v1/machines/list", request: nothing, response: z.object({ machines: z.array(applianceMachineShape) }) },
  /** Removes what no recovery point needs from this appliance's part of the vault. */
  collectGarbage: {
    path: "/v1/vault/collect",
    request: z.object({ isDryRun: z.boolean().default(false) }),
    response: z.object({
      pointCount: countShape,
      packCount: countShape,
      packBytes: countShape,
      liveBytes: countShape,
      removedPackCount: countShape,
      rewrittenPackCount: countShape,
      removedBytes: countShape,
      movedBytes: countShape,
      pinnedPackCount: countShape,
      damagedPacks: z.array(z.string()),
      tookMs: z.number(),
    }),
  },
  /** Reads every byte that points rely on: of all, of a machine, or of one point. */
  verifyPoints: {
    path: "/v1/vault/verify",
    request: z.object({ machineId: machineIdShape.optional(), pointId: pointIdShape.optional() }),
    response: z.object({
      pointCount: countShape,
      readBlocks: countShape,
      damaged: z.array(
        z.object({
          pointId: pointIdShape,
          diskId: diskIdShape,
          offset: countShape,
          length: countShape,
          finding: z.string(),
          packKey: z.string().exactOptional(),
          packOffset: countShape.exactOptional(),
        }),
      ),
      damagedCount: countShape,
    }),
  },
  /** Points whose objects are gone, as far as packs tell of them. */
  listLostPoints: {
    path: "/v1/vault/lost",
    request: nothing,
    response: z.object({ points: z.array(shownPointShape.extend({ isWhole: z.boolean() })), isComplete: z.boolean() }),
  },
  restorePoint: { path: "/v1/vault/restore-point", request: z.object({ pointId: pointIdShape }), response: shownPointShape },
  /** Has a machine's agent count for a while what is written, without replicating. */
  startProfile: {
    path: "/v1/profile/start",
    request: z.object({ machineId: machineIdShape, seconds: z.number().int().min(profileSecondsMin).max(profileSecondsMax) }),
    response: z.object({ orderId: orderIdShape }),
  },
  /** Absent while it is under way; fails as the agent failed. */
  profileResult: {
    path: "/v1/profile/result",
    request: z.object({ orderId: orderIdShape }),
    response: z.object({ profile: churnProfileShape.optional() }),
  },
  /** Makes the set-up page's password anew and ends its sessions. The only time that it can be read. */
  setupPassword: {
    path: "/v1/setup/password",
    request: nothing,
    response: z.object({ password: z.string(), urls: z.array(z.string()), fingerprint: z.string() }),
  },
  /** In Prometheus' form. */
  metrics: { path: "/v1/metrics", request: nothing, response: z.object({ text: z.string() }) },
  /** What limits hold on the lines, why, and what passes them. */
  showLimits: { path: "/v1/limits/show", request: nothing, response: limitsStateShape },
  /** In force on return, without a restart. */
  changeLimits: { path: "/v1/limits/change", request: limitsChangeShape, response: limitsStateShape },
  forgetHostKey: {
    path: "/v1/host-keys/forget",
    request: z.object({ address: z.string().max(300) }),
    response: z.object({ wasKnown: z.boolean() }),
  },
} as const;
export type AdminRoutes = typeof adminRoutes;
export type AdminRoute = keyof AdminRoutes;
export type AdminRequest<Route extends AdminRoute> = z.input<AdminRoutes[Route]["request"]>;
export type AdminResponse<Route extends AdminRoute> = z.output<AdminRoutes[Route]["response"]>;
