// Ids have kinds: a plain string never travels as an id, and two kinds cannot be mixed.

declare const kind: unique symbol;
type Branded<Kind extends string> = string & { readonly [kind]: Kind };

/** A source machine as the appliance knows it: UUID. */
export type MachineId = Branded<"MachineId">;
/** A disk inside its machine, by stable identity (serial, WWN or partition-table id), never by name: [a-z0-9-]{1,64}. */
export type DiskId = Branded<"DiskId">;
/** One recovery point of one machine: time-ordered UUID. */
export type PointId = Branded<"PointId">;
export type PackId = Branded<"PackId">;
/** One writer's part of a vault: UUID. */
export type AreaId = Branded<"AreaId">;
export type VaultId = Branded<"VaultId">;
export type ApplianceId = Branded<"ApplianceId">;
export type OrderId = Branded<"OrderId">;
/** A content digest in lower-case hex, 64 digits. */
export type DigestHex = Branded<"DigestHex">;

const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const diskIdPattern = /^[a-z0-9][a-z0-9-]{0,63}$/;
const digestPattern = /^[0-9a-f]{64}$/;

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- it names the kind that the pattern proves
function parser<Id extends string>(what: string, pattern: RegExp): (text: string) => Id {
  return (text) => {
    if (!pattern.test(text)) throw new TypeError(`not ${what}: ${JSON.stringify(text.slice(0, 80))}`);
    return text as Id; // Proved by the pattern above.
  };
}

export const parseMachineId = parser<MachineId>("a machine id", uuidPattern);
export const parseDiskId = parser<DiskId>("a disk id", diskIdPattern);
export const parsePointId = parser<PointId>("a recovery point id", uuidPattern);
export const parsePackId = parser<PackId>("a pack id", uuidPattern);
export const parseAreaId = parser<AreaId>("the id of an area", uuidPattern);
export const parseVaultId = parser<VaultId>("a vault id", uuidPattern);
export const parseApplianceId = parser<ApplianceId>("an appliance id", uuidPattern);
export const parseOrderId = parser<OrderId>("an order id", uuidPattern);
export const parseDigestHex = parser<DigestHex>("a digest", digestPattern);
