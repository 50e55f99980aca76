// Private DNS zones, their links to networks and their record sets; the landing zone's resolver follows them.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { childId, type ResourceId } from "../api/resource-id.ts";
import { defineResource, type ArmCall, type ResourceType } from "../api/resource-type.ts";
import { presentResource, type JsonObject, type Resource, type ResourceStore } from "../db/resources.ts";
import { checkRecordSet, firstSoa, recordKinds, recordShapeOf, recordTypeOf, type RecordKind } from "../dns/dns-records.ts";
import { zoneLinkType, zoneType } from "../private-link/endpoint-plan.ts";
import type { PrivateLink } from "../private-link/private-link.ts";
import { refuseFields } from "./refused-fields.ts";

const zoneNamePattern = /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/i;
const recordNamePattern = /^(@|[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?)*)$/i;
const recordSetsMax = 25_000;
const linksMax = 1000;
const registrationsMax = 100;

const linkShape = z.looseObject({
  virtualNetwork: z.looseObject({ id: z.string().max(2048) }),
  registrationEnabled: z.boolean().default(false),
  resolutionPolicy: z.enum(["Default", "NxDomainRedirect"]).default("Default"),
});
const linkedShape = z.looseObject({ virtualNetwork: z.looseObject({ id: z.string() }) });

interface Dependencies {
  readonly resources: ResourceStore;
  readonly privateLink: () => PrivateLink;
}

export function dnsTypes(dependencies: Dependencies): readonly ResourceType[] {
  const { resources } = dependencies;
  return [
    zoneResource(dependencies),
    linkResource(dependencies),
    ...recordKinds.map((kind) => recordResource(dependencies, kind)),
    defineResource({
      type: `${zoneType}/ALL`,
      within: "parent",
      properties: z.looseObject({}),
      source: { get: async () => undefined, list: async (call, page) => await listRecords(resources, call, recordKinds, page) },
    }),
  ];
}

/** The zone's change is answered when the resolver answers it; what stands in the resolver's way is told. */
async function serveZones(privateLink: () => PrivateLink): Promise<void> {
  await privateLink().reconcile({ zones: "changed" });
  const fault = privateLink().faultOf("resolver");
  if (fault !== undefined) throw fault;
}

const count = z.number().optional();
/** All of it is told by the hub; clients send back what they read. */
const zoneShape = z.strictObject({
  maxNumberOfRecordSets: count,
  numberOfRecordSets: count,
  maxNumberOfVirtualNetworkLinks: count,
  numberOfVirtualNetworkLinks: count,
  maxNumberOfVirtualNetworkLinksWithRegistration: count,
  numberOfVirtualNetworkLinksWithRegistration: count,
  provisioningState: z.string().max(40).optional(),
  internalId: z.string().max(400).optional(),
});

function zoneResource({ resources, privateLink }: Dependencies): ResourceType {
  return defineResource({
    type: zoneType,
    within: "resourceGroup",
    properties: zoneShape,
    canPatch: true,
    onPut: async (call) => {
      requireName(zoneNamePattern, call.id.name);
      return { kind: "done", properties: {} };
    },
    present: async (zone) => {
      const counts = await resources.countChildren(zone.id);
      return {
        maxNumberOfRecordSets: recordSetsMax,
        numberOfRecordSets: recordKinds.reduce((sum, kind) => sum + (counts.get(recordTypeOf(kind).toLowerCase()) ?? 0), 0),
        maxNumberOfVirtualNetworkLinks: linksMax,
        numberOfVirtualNetworkLinks: counts.get(zoneLinkType.toLowerCase()) ?? 0,
        maxNumberOfVirtualNetworkLinksWithRegistration: registrationsMax,
        numberOfVirtualNetworkLinksWithRegistration: 0,
      };
    },
    onDelete: async (_call, zone) => {
      const links = await resources.list({ under: zone.id.text, type: zoneLinkType, countMax: 20 });
      if (links.length === 0) return { kind: "done" };
      throw new Fault("StateConflict", `could not delete the zone ${zone.id.name}: networks are linked to it`, {
        evidence: { virtualNetworkLinks: links.map((link) => link.id.text) },
        action: "delete the virtual network links first",
        retry: "never",
      });
    },
    onChanged: async (call) => {
      if ((await resources.find(call.id)) !== undefined) await saveFirstSoa(resources, call.id);
      await serveZones(privateLink);
    },
  });
}

async function saveFirstSoa(resources: ResourceStore, zone: ResourceId): Promise<void> {
  const id = childId(zone, "SOA", "@");
  if ((await resources.find(id)) === undefined) await resources.save({ id, properties: firstSoa });
}

function linkResource({ resources, privateLink }: Dependencies): ResourceType {
  return defineResource({
    type: zoneLinkType,
    within: "parent",
    properties: linkShape,
    canPatch: true,
    onPut: async (call, { properties, existing }) => {
      refuseFields(`the link ${call.id.name}`, properties, {
        registrationEnabled: "landed machines are not registered by themselves; add an A record for each name that is wanted",
      });
      if (properties.resolutionPolicy !== "Default")
        throw new Fault("InputInvalid", "could not save the link: the landing zone's resolver asks no other resolver", {
          evidence: { resolutionPolicy: properties.resolutionPolicy, allowed: ["Default"] },
        });
      const network = await resources.get(properties.virtualNetwork.id);
      const links = await resources.list({ under: call.id.parentText, type: zoneLinkType, countMax: linksMax });
      const other = links.find((link) => link.id.key !== call.id.key && networkOf(link) === network.id.key);
      const moved = existing !== undefined && networkOf(existing) !== network.id.key;
      if (other !== undefined || moved)
        throw new Fault(
          "StateConflict",
          `could not save the link ${call.id.name}: ${moved ? "its network is fixed" : "the network is linked already"}`,
          {
            evidence: { network: network.id.text, link: other?.id.text ?? call.id.text },
            action: "delete the link of the evidence first",
            retry: "never",
          },
        );
      return { kind: "done", properties: { ...properties, virtualNetwork: { id: network.id.text }, virtualNetworkLinkState: "Completed" } };
    },
    onChanged: async () => await serveZones(privateLink),
  });
}

function networkOf(link: Resource): string {
  return linkedShape.parse(link.properties).virtualNetwork.id.toLowerCase();
}

function recordResource({ resources, privateLink }: Dependencies, kind: RecordKind): ResourceType {
  const type = recordTypeOf(kind);
  return defineResource({
    type,
    within: "parent",
    properties: recordShapeOf(kind),
    canPatch: true,
    source: {
      get: async (call) => {
        const record = await resources.find(call.id);
        return record === undefined ? undefined : showRecord(record, type);
      },
      list: async (call, page) => await listRecords(resources, call, [kind], page),
    },
    onPut: async (call, { properties }) => {
      requireName(recordNamePattern, call.id.name);
      if (kind === "SOA" && call.id.name !== "@") refuseName(call.id, "the one SOA record of a zone is named @");
      if (kind === "CNAME" && call.id.name === "@") refuseName(call.id, "the zone's own name cannot be an alias");
      await refuseBesideAlias(resources, call.id, kind);
      const { fqdn: _fqdn, isAutoRegistered: _registered, provisioningState: _state, ...kept } = properties;
      checkRecordSet({ name: call.id.name, kind, properties: kept });
      return { kind: "done", properties: kept };
    },
    present: async (record) => shownProperties(record),
    onDelete:
      kind === "SOA"
        ? async (call) => refuseName(call.id, "a zone keeps its SOA record; delete the zone instead")
        : async () => ({ kind: "done" }),
    onChanged: async () => await serveZones(privateLink),
  });
}

/** RFC 1034 3.6.2: where an alias stands, no other data may stand. */
async function refuseBesideAlias(resources: ResourceStore, id: ResourceId, kind: RecordKind): Promise<void> {
  const others = recordKinds.filter((other) => other !== kind && (kind === "CNAME" || other === "CNAME"));
  for (const other of others) {
    const there = await resources.find(`${id.parentText}/${other}/${id.name}`);
    if (there === undefined) continue;
    throw new Fault("StateConflict", `could not save the DNS record ${id.name}: an alias and other records cannot share a name`, {
      evidence: { present: there.id.text },
      action: "delete the record of the evidence, or choose another name",
      retry: "never",
    });
  }
}

function showRecord(record: Resource, type: string): JsonObject {
  return presentResource(record, type, shownProperties(record));
}

function shownProperties(record: Resource): JsonObject {
  const zone = record.id.names[0] ?? "";
  const fqdn = record.id.name === "@" ? `${zone}.` : `${record.id.name}.${zone}.`;
  return { ...record.properties, fqdn, isAutoRegistered: false };
}

/** Record sets of a zone, one kind after the other; `$recordsetnamesuffix` and `$top` as Azure has them. */
async function listRecords(
  resources: ResourceStore,
  call: ArmCall,
  kinds: readonly RecordKind[],
  page: { readonly after: string | undefined; readonly countMax: number },
): Promise<{ readonly items: readonly JsonObject[]; readonly next: string | undefined }> {
  const suffix = (call.query["$recordsetnamesuffix"] ?? "").toLowerCase();
  const top = Number(call.query["$top"] ?? page.countMax);
  const countMax = Number.isInteger(top) && top > 0 ? Math.min(top, page.countMax) : page.countMax;
  const [firstKind, firstKey = ""] = page.after?.split(" ", 2) ?? [];
  const start = Math.max(
    0,
    kinds.findIndex((kind) => kind === firstKind),
  );
  const items: JsonObject[] = [];
  for (const [index, kind] of kinds.slice(start).entries()) {
    const type = recordTypeOf(kind);
    for (let afterKey = index === 0 ? firstKey : ""; ;) {
      const records = await resources.list({ under: call.id.text, type, afterKey, countMax: page.countMax });
      for (const record of records) {
        if (record.id.name.toLowerCase().endsWith(suffix)) items.push(showRecord(record, type));
        afterKey = record.id.key;
        if (items.length === countMax) return { items, next: `${kind} ${afterKey}` };
      }
      if (records.length < page.countMax) break;
    }
  }
  return { items, next: undefined };
}

function requireName(pattern: RegExp, name: string): void {
  if (!pattern.test(name) || name.length > 253)
    throw new Fault("InputInvalid", "could not save the DNS name: it is not a host name", { evidence: { name: name.slice(0, 300) } });
}

function refuseName(id: ResourceId, reason: string): never {
  throw new Fault("InputInvalid", `could not change the DNS record ${id.name}: ${reason}`, { evidence: { resourceId: id.text } });
}
