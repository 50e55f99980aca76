// Generations of vaults' keys: what became of each and how much is still sealed with it. The keys themselves are secrets of their vaults.

import { sql, type Kysely } from "kysely";
import type { SealCensus } from "../../vault/seal-census.ts";
import type { Tables } from "./tables.ts";

/**
 * prepared: given to appliances, nothing is sealed with it yet. current: new objects are sealed with it. former: still needed for reading.
 * ending: nobody gets it any more; it comes back as former, or is destroyed.
 */
export type GenerationState = "prepared" | "current" | "former" | "ending" | "destroyed";

export interface KeyGeneration {
  readonly generation: number;
  readonly state: GenerationState;
  /** Unknown of a first one, which is as old as its vault. */
  readonly madeAt?: string;
  readonly usedFrom?: string;
  readonly usedUntil?: string;
  /** It is destroyed by itself once nothing is sealed with it. */
  readonly destroysItself: boolean;
  readonly counted?: { readonly at: string; readonly packCount: number; readonly packBytes: number; readonly pointCount: number };
}

type Queryable = Kysely<Tables>;

/** Told when the keys of some vault are others. */
export const vaultKeysTopic = "vault-keys";

/** Of what the hub keeps as secrets of a vault. */
export function keyNameOf(generation: number): string {
  return generation === 1 ? "vaultKey" : `vaultKey/${generation}`;
}

export const vaultKeyStatements: readonly string[] = [
  `create table vault_keys (
    vault_key text not null, generation int not null, state text not null, made_at timestamptz, used_from timestamptz,
    used_until timestamptz, destroys_itself boolean not null default false, pack_count bigint, pack_bytes bigint, point_count bigint,
    counted_at timestamptz, looked_at timestamptz, primary key (vault_key, generation))`,
  `create unique index vault_keys_current on vault_keys (vault_key) where state = 'current'`,
];

interface Row {
  readonly generation: number;
  readonly state: GenerationState;
  readonly made_at: string | null;
  readonly used_from: string | null;
  readonly used_until: string | null;
  readonly destroys_itself: boolean;
  readonly pack_count: string | null;
  readonly pack_bytes: string | null;
  readonly point_count: string | null;
  readonly counted_at: string | null;
}

const first: KeyGeneration = { generation: 1, state: "current", destroysItself: false };

/** All that there ever were, the oldest first; a vault whose key was never changed has the first alone. */
export async function readGenerations(db: Queryable, vaultKey: string): Promise<readonly KeyGeneration[]> {
  const found = await sql<Row>`select * from vault_keys where vault_key = ${vaultKey} order by generation`.execute(db);
  return found.rows.length === 0 ? [first] : found.rows.map(toGeneration);
}

/** For a job's step: may be done twice. */
export async function prepareGeneration(
  db: Queryable,
  vaultKey: string,
  wish: { readonly generation: number; readonly destroysFormer: boolean },
): Promise<void> {
  await sql`insert into vault_keys (vault_key, generation, state) values (${vaultKey}, 1, 'current') on conflict do nothing`.execute(db);
  if (wish.destroysFormer)
    await sql`update vault_keys set destroys_itself = true where vault_key = ${vaultKey} and state in ('current', 'former')
      and generation < ${wish.generation}`.execute(db);
  await sql`insert into vault_keys (vault_key, generation, state, made_at)
    values (${vaultKey}, ${wish.generation}, 'prepared', clock_timestamp()) on conflict do nothing`.execute(db);
}

/** Takes a prepared generation back; one that is in use stays. Answers whether it is gone. */
export async function discardPrepared(db: Queryable, vaultKey: string, generation: number): Promise<boolean> {
  const gone = await sql`delete from vault_keys where vault_key = ${vaultKey} and generation = ${generation} and state = 'prepared'
    returning generation`.execute(db);
  return gone.rows.length > 0;
}

/** From now on it is the current one. Twice is fine. */
export async function useGeneration(db: Queryable, vaultKey: string, generation: number): Promise<void> {
  await sql`update vault_keys set state = 'former', used_until = clock_timestamp()
    where vault_key = ${vaultKey} and state = 'current' and generation < ${generation}`.execute(db);
  await sql`update vault_keys set state = 'current', used_from = clock_timestamp()
    where vault_key = ${vaultKey} and generation = ${generation} and state = 'prepared'`.execute(db);
}

/** Answers whether the generation was in one of these states, and has the new one now. */
export async function moveGeneration(
  db: Queryable,
  vaultKey: string,
  move: { readonly generation: number; readonly from: readonly GenerationState[]; readonly to: GenerationState },
): Promise<boolean> {
  const moved = await sql`update vault_keys set state = ${move.to} where vault_key = ${vaultKey} and generation = ${move.generation}
    and state = any(${move.from}::text[]) returning generation`.execute(db);
  return moved.rows.length > 0;
}

export async function setDestroysItself(db: Queryable, vaultKey: string, generation: number, isAsked: "yes" | "no"): Promise<void> {
  await sql`update vault_keys set destroys_itself = ${isAsked === "yes"} where vault_key = ${vaultKey} and generation = ${generation}`.execute(
    db,
  );
}

/** Keeps what was counted, of every generation that is there; of those that the count does not name there is nothing. */
export async function keepCensus(db: Queryable, vaultKey: string, { counts }: Pick<SealCensus, "counts">): Promise<void> {
  const column = (key: keyof (typeof counts)[number]): readonly number[] => counts.map((each) => each[key]);
  await sql`update vault_keys k set counted_at = clock_timestamp(), pack_count = coalesce(c.packs, 0), pack_bytes = coalesce(c.bytes, 0),
      point_count = coalesce(c.points, 0)
    from vault_keys own left join unnest(${column("generation")}::int[], ${column("packCount")}::bigint[], ${column("packBytes")}::bigint[],
      ${column("pointCount")}::bigint[]) as c(generation, packs, bytes, points) on c.generation = own.generation
    where k.vault_key = ${vaultKey} and own.vault_key = k.vault_key and own.generation = k.generation`.execute(db);
}

/** Vaults that have a former generation, each at most once in the interval: for one of several hubs. */
export async function claimVaultsToCount(db: Queryable, intervalMs: number): Promise<readonly string[]> {
  const claimed = await sql<{ vault: string }>`update vault_keys set looked_at = clock_timestamp() where (vault_key, generation) in (
      select vault_key, min(generation) from vault_keys where state = 'former' group by vault_key)
    and (looked_at is null or looked_at < clock_timestamp() - ${intervalMs} * interval '1 ms') returning vault_key as vault`.execute(db);
  return claimed.rows.map(({ vault }) => vault);
}

function toGeneration(row: Row): KeyGeneration {
  const counted =
    row.counted_at === null
      ? {}
      : {
          counted: {
            at: row.counted_at,
            packCount: Number(row.pack_count),
            packBytes: Number(row.pack_bytes),
            pointCount: Number(row.point_count),
          },
        };
  return {
    generation: row.generation,
    state: row.state,
    ...(row.made_at === null ? {} : { madeAt: row.made_at }),
    ...(row.used_from === null ? {} : { usedFrom: row.used_from }),
    ...(row.used_until === null ? {} : { usedUntil: row.used_until }),
    destroysItself: row.destroys_itself,
    ...counted,
  };
}
