// Addresses of private endpoints: one owner each, given out lowest first, kept over restarts.

import type { Kysely } from "kysely";
import { Fault } from "../../contract/errors.ts";
import { lockKey } from "./locks.ts";
import type { Tables } from "./tables.ts";

export interface PrivateAddresses {
  /**
   * Gives each member of the endpoint an address from `candidates` that nobody has; members that have one keep it.
   * Fault AddressRangeFull when they do not suffice; then nothing is given.
   */
  allocate(wanted: {
    readonly subnetId: string;
    readonly endpointId: string;
    readonly members: readonly string[];
    readonly candidates: Iterable<string>;
  }): Promise<ReadonlyMap<string, string>>;
  release(endpointId: string): Promise<void>;
  /** Addresses in use in a subnet, in no order. */
  ofSubnet(subnetId: string): Promise<readonly TakenAddress[]>;
  /** Addresses in use anywhere. */
  taken(): Promise<ReadonlySet<string>>;
}

export interface TakenAddress {
  readonly address: string;
  /** In lower case. */
  readonly endpointId: string;
}

export function openPrivateAddresses({ db }: { readonly db: Kysely<Tables> }): PrivateAddresses {
  return {
    allocate: (wanted) =>
      db.transaction().execute(async (transaction) => {
        const subnetKey = wanted.subnetId.toLowerCase();
        const endpointKey = wanted.endpointId.toLowerCase();
        await lockKey(transaction, "addresses");
        // Virtual networks of several groups may stand for the same network of the configuration, so an address is taken for all of them.
        const rows = await transaction.selectFrom("private_addresses").selectAll().execute();
        const taken = new Set(rows.map((row) => row.address));
        const own = rows.filter((row) => row.subnet_key === subnetKey && row.endpoint_key === endpointKey);
        const given = new Map(own.map((row) => [row.member, row.address]));
        const free = wanted.candidates[Symbol.iterator]();
        for (const member of wanted.members.filter((name) => !given.has(name))) {
          const address = nextFree(free, taken);
          if (address === undefined)
            throw new Fault("AddressRangeFull", `could not give ${wanted.endpointId} an address: the subnet has none left`, {
              evidence: { subnet: wanted.subnetId, taken: taken.size, needed: wanted.members.length - given.size },
            });
          await transaction
            .insertInto("private_addresses")
            .values({ subnet_key: subnetKey, address, endpoint_key: endpointKey, member })
            .execute();
          given.set(member, address);
        }
        return given;
      }),
    ofSubnet: async (subnetId) => {
      const query = db.selectFrom("private_addresses").select(["address", "endpoint_key"]);
      const rows = await query.where("subnet_key", "=", subnetId.toLowerCase()).execute();
      return rows.map((row) => ({ address: row.address, endpointId: row.endpoint_key }));
    },
    taken: async () => new Set((await db.selectFrom("private_addresses").select("address").execute()).map((row) => row.address)),
    release: async (endpointId) => {
      await db.deleteFrom("private_addresses").where("endpoint_key", "=", endpointId.toLowerCase()).execute();
    },
  };
}

function nextFree(candidates: Iterator<string>, taken: ReadonlySet<string>): string | undefined {
  for (let next = candidates.next(); next.done !== true; next = candidates.next()) if (!taken.has(next.value)) return next.value;
  return undefined;
}
