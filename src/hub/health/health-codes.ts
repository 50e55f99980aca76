// The health errors that the hub raises by itself: how grave each is, what may cause it, and what to do. docs/guide/health.md shows the table.

import type { EventKind } from "../db/events.ts";

export interface HealthCode {
  readonly severity: "Critical" | "Warning";
  /** Words of the documented errorCategory. */
  readonly category: "Replication" | "FabricInfrastructure" | "Configuration" | "VersionExpiry";
  readonly kind: EventKind;
  /** The part in which it happens. */
  readonly component: "Agent" | "Appliance" | "Hub";
  readonly summary: string;
  readonly causes: readonly string[];
  readonly action: string;
}

export const healthCodes = {
  ApplianceSilent: {
    ...{ severity: "Critical", category: "FabricInfrastructure", kind: "ServerHealth", component: "Appliance" },
    summary: "the appliance has not been heard of",
    causes: ["the appliance does not run", "the private line is down"],
    action: "check the appliance and its way to the vault's private endpoint",
  },
  CacheSpaceLow: {
    ...{ severity: "Warning", category: "FabricInfrastructure", kind: "ServerHealth", component: "Appliance" },
    summary: "the appliance slows its agents down, because its cache has little room left",
    causes: ["the line to the storage account is slower than the changes", "the disk of the cache is too small, or others fill it"],
    action: "free or add space on the disk of the appliance's cache; agents are let go by themselves once a quarter of it is free",
  },
  AgentSilent: {
    ...{ severity: "Critical", category: "Replication", kind: "AgentHealth", component: "Agent" },
    summary: "the agent of the machine has not been heard of",
    causes: ["the machine is off", "the guest cannot reach the appliance's ports 443 and 9443", "the appliance itself is not heard of"],
    action: "look at the guest's journal: journalctl -u watari-agent",
  },
  RecoveryPointOverdue: {
    ...{ severity: "Warning", category: "Replication", kind: "VmHealth", component: "Agent" },
    summary: "the machine has had no new recovery point for longer than its policy allows",
    causes: ["the machine writes faster than the line carries", "the appliance's spool is full", "the storage account refuses the packs"],
    action: "look at the machine's dirty bytes and at the appliance's own faults",
  },
  ApplicationPointOverdue: {
    ...{ severity: "Warning", category: "Replication", kind: "VmHealth", component: "Agent" },
    summary: "the machine has had no application-consistent recovery point for longer than its policy allows",
    causes: ["there are no scripts in the guest, or they are refused", "a script fails or takes too long", "no point at all can be made"],
    action: "look at the events ApplicationConsistentPointMissed of the machine: they hold the output of its scripts",
  },
  LandedMachineGone: {
    ...{ severity: "Critical", category: "Configuration", kind: "VmHealth", component: "Hub" },
    summary: "a landed machine of this item is not on its host any more",
    causes: ["the machine was removed on the host without the hub", "the host lost its state"],
    action: "end the test with a clean-up, or cancel the failover and land the machine again",
  },
  ApplianceCertificateEnding: {
    ...{ severity: "Warning", category: "VersionExpiry", kind: "ServerHealth", component: "Appliance" },
    summary: "the certificate of the appliance ends soon",
    causes: ["the appliance was cut off for long, or could not renew its certificate by itself"],
    action: "bring the appliance back and renew its certificate (renewCertificate of the fabric); once it has ended, register it anew",
  },
  StorageRoleMissing: {
    ...{ severity: "Critical", category: "Configuration", kind: "ServerHealth", component: "Hub" },
    summary: "the vault's identity may not write to its storage account",
    causes: ["the role was taken back or was never given"],
    action: "assign the role Storage Blob Data Contributor on the storage account to the vault's identity",
  },
  PrivateEndpointUnapproved: {
    ...{ severity: "Warning", category: "Configuration", kind: "ServerHealth", component: "Hub" },
    summary: "the connection of a private endpoint is not approved",
    causes: ["nobody has approved it yet", "it was rejected or cut by the owner of its target"],
    action: "approve the private endpoint connection at its target, or delete the private endpoint",
  },
  JobStuck: {
    ...{ severity: "Warning", category: "Configuration", kind: "JobStatus", component: "Hub" },
    summary: "no hub works on the job",
    causes: ["the only hub of the host on which the job must run is down", "every hub has as many jobs as it may run at once"],
    action: "start the hub of that host, or cancel the job",
  },
  AlertNotDelivered: {
    ...{ severity: "Warning", category: "Configuration", kind: "ServerHealth", component: "Hub" },
    summary: "alerts of the vault are not delivered",
    causes: ["the mail server or a webhook's receiver is down or refuses the message", "no mail server is set up"],
    action: "see why with watari alert deliveries, correct it, and try it with watari alert test",
  },
} as const satisfies Record<string, HealthCode>;

export type HealthErrorCode = keyof typeof healthCodes;
