// What the set-up page says to the appliance, over HTTPS with a session: one route for each thing that a person does there.

import { z } from "zod";
import { setupSteps } from "./setup-steps.ts";
import { addCredentialShape, addVcenterShape, credentialShape } from "./appliance-admin.ts";
import { networkCheckShape } from "./network-check.ts";
import { vcenterSummaryShape } from "./appliance-protocol.ts";
import { applianceIdShape, countShape, faultReportShape, timestampShape } from "./shapes.ts";

/** done: settled. current: the first that is not. later: cannot be opened yet. */
const stepStatusShape = z.enum(["done", "current", "later"]);
export type SetupStepStatus = z.output<typeof stepStatusShape>;

const addressShape = z.union([z.ipv4(), z.ipv6()]);

const hostLineShape = z.object({ name: z.string().max(253), addresses: z.array(addressShape).min(1).max(16) });
const addressesOfMachineShape = z.array(
  z.object({ device: z.string().max(64), address: z.string().max(64), prefixLength: countShape, isUp: z.boolean() }),
);

/** The answer of the last try of a step; kept, so that a reload shows it again. */
const stepResultShape = z.object({ at: timestampShape, checks: z.array(networkCheckShape) });
export type SetupStepResult = z.output<typeof stepResultShape>;

/** What a registration key says, without its secret. */
const keySummaryShape = z.object({
  keyId: z.string(),
  vaultResourceId: z.string(),
  expiresAt: timestampShape,
  isExpired: z.boolean(),
  privateNames: z.array(z.string()),
  privateRanges: z.array(z.string()),
  publicNames: z.array(z.string()),
});

export const setupStateShape = z.object({
  version: z.string(),
  steps: z.array(z.object({ step: z.enum(setupSteps), status: stepStatusShape, result: stepResultShape.optional() })),
  isFinished: z.boolean(),
  network: z.object({
    name: z.string(),
    listenAddresses: z.array(z.string()),
    advertiseAddress: z.string().optional(),
    machineAddresses: addressesOfMachineShape,
  }),
  names: z.object({ hosts: z.array(hostLineShape), dnsServers: z.array(z.string()) }),
  /** Of the registration, or of the key that was given for it. */
  key: keySummaryShape.optional(),
  proxy: z.object({ url: z.string().optional(), userName: z.string().optional(), bypass: z.array(z.string()) }),
  time: z.object({ now: timestampShape, isSynchronised: z.boolean().optional() }),
  registration: z.object({ applianceId: applianceIdShape, vaultResourceId: z.string(), isHubReached: z.boolean() }).optional(),
  vcenters: z.array(vcenterSummaryShape),
  hasNoVcenter: z.boolean(),
  machineCount: countShape,
  credentials: z.array(credentialShape),
});
export type SetupState = z.output<typeof setupStateShape>;

const levelShape = z.enum(["healthy", "warning", "critical", "unknown"]);
export type HealthLevel = z.output<typeof levelShape>;

const measureShape = z.object({
  measure: z.enum(["processor", "load", "memory", "cacheFree", "uploadBacklog", "heartbeat", "behind"]),
  /** A share of 1, or minutes; absent while unknown. */
  value: z.number().optional(),
  unit: z.enum(["share", "minutes"]),
  warning: z.number().optional(),
  critical: z.number().optional(),
  level: levelShape,
});
export type ComponentMeasure = z.output<typeof measureShape>;

const componentShape = z.object({
  kind: z.enum(["configurationServer", "processServer", "uploader", "vcenter", "agent"]),
  name: z.string(),
  /** It is not this appliance's: what it told the hub is shown. */
  isElsewhere: z.boolean().optional(),
  level: levelShape,
  measures: z.array(measureShape),
  faults: z.array(faultReportShape),
});
export type SetupComponent = z.output<typeof componentShape>;

const componentsShape = z.object({ at: timestampShape, components: z.array(componentShape) });

const nothing = z.strictObject({});

/** Every route is POST on "/api/" and its name, JSON both ways; a status other than 200 carries one FaultReport. */
export const setupRoutes = {
  /** Also without a session. The token goes into the header of each later call. */
  session: { request: nothing, response: z.object({ isSignedIn: z.boolean(), token: z.string().optional() }) },
  /** Without a session. */
  signIn: { request: z.strictObject({ password: z.string().min(1).max(200) }), response: z.object({ token: z.string() }) },
  signOut: { request: nothing, response: nothing },
  state: { request: nothing, response: setupStateShape },
  saveNetwork: {
    request: z.strictObject({
      name: z.string().max(63),
      listenAddresses: z.array(addressShape).min(1).max(16),
      /** Empty: the first of the addresses is given to agents. */
      advertiseAddress: z.union([addressShape, z.literal("")]),
    }),
    response: setupStateShape,
  },
  saveNames: {
    request: z.strictObject({
      /** Lines of a hosts file; undefined keeps those that are there. */
      hostsText: z.string().max(200_000).optional(),
      dnsServers: z.array(z.string().max(64)).max(8),
      /** The key file's text; undefined keeps the one that was given. */
      registrationKey: z.string().max(64_000).optional(),
    }),
    response: setupStateShape,
  },
  /** Lines of the names of the key with the addresses that they have now, for other systems. */
  hostsFile: { request: nothing, response: z.object({ text: z.string() }) },
  saveProxy: {
    request: z.strictObject({
      /** Empty: no proxy. */
      url: z.string().max(300),
      userName: z.string().max(256),
      /** undefined keeps the one that is there, while the user's name is the same. */
      password: z.string().max(1024).optional(),
    }),
    response: setupStateShape,
  },
  checkTime: { request: nothing, response: setupStateShape },
  register: { request: nothing, response: setupStateShape },
  /** The vCenter is kept after a login with the account has succeeded. */
  addVcenter: {
    request: addVcenterShape
      .omit({ credential: true })
      .extend({ userName: z.string().min(1).max(256), password: z.string().min(1).max(1024) })
      .strict(),
    response: setupStateShape,
  },
  /** There is none here: machines are added by their address. */
  skipVcenter: { request: nothing, response: setupStateShape },
  addCredential: { request: addCredentialShape.strict(), response: setupStateShape },
  /** Logs in to a guest and becomes root there, as an installation would; installs nothing. */
  tryCredential: {
    request: z.strictObject({ credential: z.string().min(1).max(64), address: z.string().min(1).max(253) }),
    response: z.object({ machine: z.string() }),
  },
  /** All accounts were entered, or there is none: then agents are installed by hand. */
  confirmCredentials: { request: nothing, response: setupStateShape },
  checkAll: { request: nothing, response: setupStateShape },
  components: { request: nothing, response: componentsShape },
  passphrase: { request: nothing, response: z.object({ passphrase: z.string() }) },
} as const;
export type SetupRoutes = typeof setupRoutes;
export type SetupRoute = keyof SetupRoutes;
export type SetupRequest<Route extends SetupRoute> = z.input<SetupRoutes[Route]["request"]>;
export type SetupResponse<Route extends SetupRoute> = z.output<SetupRoutes[Route]["response"]>;
