// Record sets of private DNS zones: which types there are, what each may hold, and what the resolver is told.

import { z } from "zod";
import type { JsonObject } from "../db/resources.ts";
import { encodeRecordData, recordTypeNumbers, type RecordData } from "./record-data.ts";
import type { DnsZone } from "./render-dnsmasq.ts";

const zoneType = "Microsoft.Network/privateDnsZones";
export const recordKinds = ["A", "AAAA", "CNAME", "MX", "PTR", "SOA", "SRV", "TXT"] as const;
export type RecordKind = (typeof recordKinds)[number];

const recordsMax = 20;
const short = z.number().int().min(0).max(65_535);
const long = z.number().int().min(0).max(4_294_967_295);
const host = z
  .string()
  .max(254)
  .regex(/^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.?$/, "a DNS name");

const listOf = <Shape extends z.ZodType>(shape: Shape) => z.array(shape).min(1).max(recordsMax);
const common = {
  ttl: z.number().int().min(1).max(2_147_483_647).default(10),
  metadata: z.record(z.string().max(80), z.string().max(2048)).optional(),
};
const shapes = {
  A: z.looseObject({ ...common, aRecords: listOf(z.strictObject({ ipv4Address: z.ipv4() })) }),
  AAAA: z.looseObject({ ...common, aaaaRecords: listOf(z.strictObject({ ipv6Address: z.ipv6() })) }),
  CNAME: z.looseObject({ ...common, cnameRecord: z.strictObject({ cname: host }) }),
  MX: z.looseObject({ ...common, mxRecords: listOf(z.strictObject({ preference: short, exchange: host })) }),
  PTR: z.looseObject({ ...common, ptrRecords: listOf(z.strictObject({ ptrdname: host })) }),
  SOA: z.looseObject({
    ...common,
    soaRecord: z.strictObject({
      host: host.optional(),
      email: host.optional(),
      serialNumber: long.optional(),
      refreshTime: long.optional(),
      retryTime: long.optional(),
      expireTime: long.optional(),
      minimumTtl: long.optional(),
    }),
  }),
  SRV: z.looseObject({ ...common, srvRecords: listOf(z.strictObject({ priority: short, weight: short, port: short, target: host })) }),
  TXT: z.looseObject({ ...common, txtRecords: listOf(z.strictObject({ value: z.array(z.string().max(255)).min(1).max(16) })) }),
} as const;

/** Every zone has this record of itself from the start. */
export const firstSoa = {
  ttl: 3600,
  soaRecord: {
    host: "dns.watari.internal",
    email: "hostmaster.watari.internal",
    serialNumber: 1,
    refreshTime: 3600,
    retryTime: 300,
    expireTime: 2_419_200,
    minimumTtl: 10,
  },
} as const;

export function recordTypeOf(kind: RecordKind): string {
  return `${zoneType}/${kind}`;
}

export function recordShapeOf(kind: RecordKind): z.ZodType<JsonObject> {
  return shapes[kind];
}

export interface RecordSet {
  readonly name: string;
  readonly kind: RecordKind;
  readonly properties: JsonObject;
}

/** A zone as the resolver serves it. */
export function toDnsZone(zone: string, sets: readonly RecordSet[]): DnsZone {
  const addresses = sets.flatMap(({ name, kind, properties }) => {
    if (kind === "A") {
      const { ttl, aRecords } = shapes.A.parse(properties);
      return [{ name, ttlSeconds: ttl, addresses: aRecords.map((record) => record.ipv4Address) }];
    }
    if (kind !== "AAAA") return [];
    const { ttl, aaaaRecords } = shapes.AAAA.parse(properties);
    return [{ name, ttlSeconds: ttl, addresses: aaaaRecords.map((record) => record.ipv6Address) }];
  });
  const aliases = sets.flatMap(({ name, kind, properties }) => {
    if (kind !== "CNAME") return [];
    const { ttl, cnameRecord } = shapes.CNAME.parse(properties);
    return [{ name, ttlSeconds: ttl, target: cnameRecord.cname.replace(/\.$/, "") }];
  });
  const others = sets.flatMap((set) =>
    dataOf(set).map((data) => ({ name: set.name, typeNumber: recordTypeNumbers[data.kind], data: encodeRecordData(data) })),
  );
  return { zone, records: addresses, aliases, others };
}

/** Refuses what cannot be said in DNS, before it is stored. */
export function checkRecordSet(set: RecordSet): void {
  for (const data of dataOf(set)) encodeRecordData(data);
}

// oxlint-disable-next-line typescript/consistent-return -- every kind answers; the compiler proves it
function dataOf({ kind, properties }: RecordSet): readonly RecordData[] {
  switch (kind) {
    case "A":
    case "AAAA":
    case "CNAME":
      return [];
    case "MX":
      return shapes.MX.parse(properties).mxRecords.map((record) => ({ kind, ...record }));
    case "PTR":
      return shapes.PTR.parse(properties).ptrRecords.map((record) => ({ kind, target: record.ptrdname }));
    case "SRV":
      return shapes.SRV.parse(properties).srvRecords.map((record) => ({ kind, ...record }));
    case "TXT":
      return shapes.TXT.parse(properties).txtRecords.map((record) => ({ kind, texts: record.value }));
    case "SOA": {
      const given = shapes.SOA.parse(properties).soaRecord;
      const first = firstSoa.soaRecord;
      const numbers = [
        given.serialNumber ?? first.serialNumber,
        given.refreshTime ?? first.refreshTime,
        given.retryTime ?? first.retryTime,
        given.expireTime ?? first.expireTime,
        given.minimumTtl ?? first.minimumTtl,
      ];
      return [{ kind, host: given.host ?? first.host, email: given.email ?? first.email, numbers }];
    }
  }
}
