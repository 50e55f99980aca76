// Watari.Audit/entries: the audit trail as an ARM list under the subscription, for who may also give access.

import type { Kysely } from "kysely";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { defineResource, type ResourceType } from "../api/resource-type.ts";
import type { AuditRow } from "../db/audit-chain.ts";
import { findAuditRow, pageOfAudit } from "../db/audit-entries.ts";
import type { JsonObject } from "../db/resources.ts";
import type { Tables } from "../db/tables.ts";

const auditEntryTypeName = "Watari.Audit/entries";
const entryShape = z.record(z.string(), z.unknown());

export function auditEntryType(db: Kysely<Tables>): ResourceType {
  return defineResource({
    type: auditEntryTypeName,
    within: "subscription",
    properties: z.looseObject({}),
    onPut: "refuse",
    onDelete: "refuse",
    source: {
      get: async (call) => {
        const row = /^\d{1,15}$/.test(call.id.name) ? await findAuditRow(db, Number(call.id.name)) : undefined;
        return row === undefined ? undefined : toBody(row, call.id.parentText);
      },
      list: async (call, { after, countMax }) => {
        if (!/^\d{0,15}$/.test(after ?? "")) throw new Fault("InputInvalid", "could not read the list: the skip token is not of this list");
        const rows = await pageOfAudit(db, Number(after ?? 0), countMax);
        const last = rows.at(-1);
        const next = rows.length === countMax && last !== undefined ? String(last.sequence) : undefined;
        return { items: rows.map((row) => toBody(row, call.id.text)), next };
      },
    },
  });
}

function toBody({ sequence, entry, previousHash, hash }: AuditRow, scope: string): JsonObject {
  const name = String(sequence);
  const properties = { ...entryShape.parse(JSON.parse(entry)), previousHash, hash };
  return { id: `${scope}/providers/${auditEntryTypeName}/${name}`, name, type: auditEntryTypeName, properties };
}
