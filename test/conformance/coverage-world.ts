// What the coverage test calls operations with: a hub, its two clients, and a value for every name that the clients' parameters have.

import assert from "node:assert/strict";
import { RecoveryServicesClient } from "@azure/arm-recoveryservices";
import { SiteRecoveryManagementClient, type ProtectableItem, type VMwareDetails } from "@azure/arm-recoveryservices-siterecovery";
import { collect } from "./journey/wait-until.ts";
import type { Rig } from "./rig.ts";
import { operationsOf, type SdkOperation } from "./sdk-operations.ts";

export type Arguments = Readonly<Record<string, unknown>>;

export interface CoverageWorld {
  readonly client: SiteRecoveryManagementClient;
  readonly vault: readonly [string, string];
  readonly fabric: string;
  readonly container: string;
  readonly containerId: string;
  readonly fabricId: string;
  readonly accountId: string;
  /** Names and ids of the site's machines, the one with the most disks first. */
  readonly machines: readonly { readonly name: string; readonly id: string }[];
  readonly operations: ReadonlyMap<string, SdkOperation>;
  /** Names of the operations that were answered, not refused. */
  readonly answered: ReadonlySet<string>;
  /** Calls by the names of the parameters; those that are not given are the world's own. */
  call(operation: string, given?: Arguments): Promise<unknown>;
}

/** Each operation by name; the same name in both clients is one with the client's short name before it. */
export function everyOperation(rig: Pick<Rig, "credential" | "subscriptionId" | "clientOptions">): ReadonlyMap<string, SdkOperation> {
  const { credential, subscriptionId, clientOptions } = rig;
  const replication = new SiteRecoveryManagementClient(credential, subscriptionId, clientOptions);
  const vaults = new RecoveryServicesClient(credential, subscriptionId, clientOptions);
  const named = (short: string, client: object): [string, SdkOperation][] =>
    operationsOf(client).map((operation) => [`${short}/${operation.name}`, operation]);
  return new Map([...named("siterecovery", replication), ...named("recoveryservices", vaults)]);
}

export async function openWorld(rig: Rig): Promise<CoverageWorld> {
  const client = new SiteRecoveryManagementClient(rig.credential, rig.subscriptionId, rig.clientOptions);
  const vault = [rig.vault, rig.resourceGroup] as const;
  const [site] = await collect(client.replicationFabrics.list(...vault));
  const custom = site?.properties?.customDetails;
  assert.ok(custom?.instanceType === "VMware");
  const { runAsAccounts } = custom as VMwareDetails; // instanceType says so.
  const fabric = site?.name ?? "";
  const container = `cloud_${fabric}`;
  const found = await collect(client.replicationProtectableItems.listByReplicationProtectionContainers(...vault, fabric, container));
  const operations = everyOperation(rig);
  const answered = new Set<string>();
  const known: Arguments = {
    ...{ resourceName: rig.vault, vaultName: rig.vault, resourceGroupName: rig.resourceGroup },
    ...{ fabricName: fabric, protectionContainerName: container, providerName: fabric, location: "local", vaultSettingName: "default" },
    ...{ virtualMachineName: "none", operationId: "00000000-0000-0000-0000-000000000000" },
  };
  return {
    client,
    vault,
    fabric,
    container,
    fabricId: site?.id ?? "",
    containerId: `${site?.id ?? ""}/replicationProtectionContainers/${container}`,
    accountId: runAsAccounts?.find(({ accountName }) => accountName === "root")?.accountId ?? "",
    machines: found.toSorted((left, right) => disksOf(right) - disksOf(left)).map(({ name = "", id = "" }) => ({ name, id })),
    operations,
    answered,
    call: async (name, given = {}) => {
      const operation = operations.get(name) ?? assert.fail(`no client has the operation ${name}`);
      for (const each of Object.keys(given)) assert.ok(operation.parameters.includes(each), `${name} has no parameter ${each}`);
      const answer = await operation.call(operation.parameters.map((each) => given[each] ?? known[each] ?? `some-${each.toLowerCase()}`));
      answered.add(name);
      return answer;
    },
  };
}

function disksOf({ properties }: ProtectableItem): number {
  const details = properties?.customDetails;
  return details !== undefined && "diskDetails" in details && Array.isArray(details.diskDetails) ? details.diskDetails.length : 0;
}
