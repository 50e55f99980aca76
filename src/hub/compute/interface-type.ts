// Network interfaces that a client makes, for a machine that it makes next: addresses, and the card's own.

import { sql } from "kysely";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import type { ArmCall, DeleteOutcome, Desired, WriteOutcome } from "../api/resource-type.ts";
import { presentResource, type JsonObject, type Resource } from "../db/resources.ts";
import { containsRange } from "../hub-config.ts";
import type { Queryable } from "../jobs/job.ts";
import type { HubServices } from "../services.ts";
import { removeFree } from "./remove-free.ts";
import { requireSame } from "../resources/same-as-present.ts";

export const interfaceType = "Microsoft.Network/networkInterfaces";
const machineType = "Microsoft.Compute/virtualMachines";
const subnetType = "Microsoft.Network/virtualNetworks/subnets";
/** Tag of an interface: what the guest calls the card. A machine's guest keeps this name. */
const guestNameTag = "watari-guest-name";

const noFilter = "the network is the host's own; the hub routes and filters nothing in it";

/** What a PUT takes. Members that are answered besides may be sent back as they are. */
export const interfaceInput = z.strictObject({
  ipConfigurations: z
    .array(
      z.strictObject({
        id: z.string().max(2048).nullish(),
        name: z.string().min(1).max(80),
        properties: z.strictObject({
          subnet: z.strictObject({ id: z.string().max(2048) }),
          privateIPAllocationMethod: z.enum(["Dynamic", "Static"]).default("Dynamic"),
          privateIPAddress: z.ipv4().nullish(),
          privateIPAddressVersion: z.literal("IPv4", "guests of made machines have addresses of version 4").nullish(),
          primary: z.boolean().nullish(),
          provisioningState: z.string().max(40).nullish(),
        }),
      }),
    )
    .length(1, "a card has one address here"),
  enableIPForwarding: z.literal(false, noFilter).nullish(),
  enableAcceleratedNetworking: z.literal(false, "cards have no hardware of their own here").nullish(),
  macAddress: z.string().max(40).nullish(),
  nicType: z.string().max(40).nullish(),
  primary: z.boolean().nullish(),
  virtualMachine: z.strictObject({ id: z.string().max(2048) }).nullish(),
});

const storedShape = z.object({
  macAddress: z.string(),
  ipConfigurations: z
    .array(
      z.object({
        properties: z.object({
          subnet: z.object({ id: z.string() }),
          privateIPAllocationMethod: z.enum(["Dynamic", "Static"]),
          privateIPAddress: z.string().optional(),
        }),
      }),
    )
    .length(1),
});

export interface MadeInterface {
  /** "52:54:00:0a:0b:0c". */
  readonly mac: string;
  readonly guestName: string | undefined;
  readonly subnetId: ResourceId;
  /** With the length of the subnet's prefix; undefined: the network gives one. */
  readonly address: string | undefined;
}

/** A row that a client made: a private endpoint's names its endpoint. */
export function isMade(resource: Resource | undefined): boolean {
  return (
    resource !== undefined && resource.properties["privateEndpoint"] === undefined && storedShape.safeParse(resource.properties).success
  );
}

export async function readInterface({ resources }: HubServices, id: ResourceId): Promise<MadeInterface | undefined> {
  const resource = await resources.find(id);
  if (resource === undefined || !isMade(resource)) return undefined;
  const { macAddress, ipConfigurations } = storedShape.parse(resource.properties);
  const { subnet, privateIPAddress } = ipConfigurations[0]?.properties ?? { subnet: { id: "" }, privateIPAddress: undefined };
  const subnetId = parseResourceId(subnet.id);
  const prefix = await prefixOf(resources, subnetId);
  const tags = z.record(z.string(), z.string()).catch({}).parse(resource.envelope["tags"]);
  return {
    mac: macAddress.toLowerCase().replaceAll("-", ":"),
    guestName: tags[guestNameTag],
    subnetId,
    address: privateIPAddress === undefined ? undefined : `${privateIPAddress}/${prefix.split("/")[1] ?? "24"}`,
  };
}

export async function putInterface(
  services: HubServices,
  call: ArmCall,
  desired: Desired<z.infer<typeof interfaceInput>>,
): Promise<WriteOutcome> {
  const { properties, envelope, existing, location } = desired;
  const what = `the interface ${call.id.name}`;
  const [configuration] = properties.ipConfigurations;
  if (configuration === undefined) throw new Error("assertion failed: the schema counts");
  const { subnet, privateIPAllocationMethod, privateIPAddress } = configuration.properties;
  const { ipConfigurations: _given, enableIPForwarding: _off, enableAcceleratedNetworking: _none, ...others } = properties;
  requireSame(what, others, existing === undefined ? {} : await showInterfaceRow(services, existing));
  const prefix = await prefixOf(services.resources, parseResourceId(subnet.id));
  const address = privateIPAllocationMethod === "Static" ? (privateIPAddress ?? undefined) : undefined;
  if (privateIPAllocationMethod === "Static" && (address === undefined || !containsRange(prefix, `${address}/32`)))
    throw new Fault("InputInvalid", `could not save ${what}: a static address is one of its subnet's`, {
      evidence: { address: address ?? "", subnet: prefix },
    });
  const kept = existing !== undefined && isMade(existing) ? storedShape.parse(existing.properties).macAddress : undefined;
  const mac = kept ?? `52-54-00-${[...services.random.bytes(3)].map((byte) => byte.toString(16).padStart(2, "0").toUpperCase()).join("-")}`;
  const stored = {
    macAddress: mac,
    nicType: "Standard",
    enableIPForwarding: false,
    enableAcceleratedNetworking: false,
    ipConfigurations: [
      {
        id: `${call.id.text}/ipConfigurations/${configuration.name}`,
        name: configuration.name,
        properties: {
          ...(address === undefined ? {} : { privateIPAddress: address }),
          privateIPAllocationMethod,
          privateIPAddressVersion: "IPv4",
          primary: true,
          subnet: { id: subnet.id },
          provisioningState: "Succeeded",
        },
      },
    ],
  };
  const { resource, isNew } = await services.resources.save({ id: call.id, location, envelope, properties: stored });
  return { kind: "answered", isNew, body: presentResource(resource, interfaceType, await showInterfaceRow(services, resource)) };
}

export async function deleteInterface(services: HubServices, call: ArmCall): Promise<DeleteOutcome> {
  const owner = await removeFree(services, call.id, machineOf);
  if (owner === undefined) return { kind: "done" };
  throw new Fault("StateConflict", `could not delete the interface ${call.id.name}: a machine has it`, {
    evidence: { machineId: owner },
    action: "delete the machine first",
    retry: "never",
  });
}

/** Properties of a row, with the machine that has it. */
export async function showInterfaceRow({ database }: HubServices, row: Resource): Promise<JsonObject> {
  if (!isMade(row)) return row.properties;
  const owner = await machineOf(database.db, row.id);
  return owner === undefined ? row.properties : { ...row.properties, primary: true, virtualMachine: { id: owner } };
}

async function machineOf(db: Queryable, id: ResourceId): Promise<string | undefined> {
  const found = await sql<{ id: string }>`select id from resources where type = ${machineType.toLowerCase()}
    and properties->>'purpose' = 'made' and properties->'interfaceIds' @> ${JSON.stringify([id.key])}::jsonb limit 1`.execute(db);
  return found.rows[0]?.id;
}

const networkShape = z.object({
  subnets: z.array(z.object({ name: z.string(), properties: z.object({ addressPrefix: z.string() }) })).default([]),
});

/** Subnets stand in their network. */
async function prefixOf(resources: HubServices["resources"], subnet: ResourceId): Promise<string> {
  const network = subnet.type.toLowerCase() === subnetType.toLowerCase() ? await resources.find(subnet.parentText) : undefined;
  const { subnets } = networkShape.parse(network?.properties ?? {});
  const found = subnets.find(({ name }) => name.toLowerCase() === subnet.name.toLowerCase());
  if (found !== undefined) return found.properties.addressPrefix;
  throw new Fault("InputInvalid", "could not save the interface: there is no such subnet", { evidence: { subnetId: subnet.text } });
}
