// The vCenters of a simulated site: added, changed and removed by the rules of the real appliance, with refusals that tests can provoke.

import { toTimestamp, type Clock } from "../../../base/clock.ts";
import type { Random } from "../../../base/random.ts";
import { byHandId, type ApplianceOrder, type Inventory } from "../../../contract/appliance-protocol.ts";
import { Fault } from "../../../contract/errors.ts";
import { simDiscovered, SimSource, simVcenterId } from "./sim-source.ts";

type Put = Extract<ApplianceOrder, { kind: "putVcenter" }>;
type Summary = Inventory["vcenters"][number];

/** Certificate of every simulated vCenter. */
export const simThumbprint = "5a".repeat(32);
/** No vCenter and no machine answers under names or addresses that begin so. */
export const simSilentPrefix = "silent";
const newMachinesPerVcenter = 2;

export const simAccounts: Inventory["runAsAccounts"] = [
  { accountId: "vcenter", name: "vcenter", kind: "vcenter" },
  { accountId: "vcenter-wrong", name: "vcenter-wrong", kind: "vcenter" },
  { accountId: "root", name: "root", kind: "linux" },
];

export class SimVcenters {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #sources: Map<string, SimSource>;
  readonly #known = new Map<string, Summary>();

  constructor(parts: { readonly clock: Clock; readonly random: Random; readonly sources: Map<string, SimSource> }) {
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.#sources = parts.sources;
    this.#known.set(simVcenterId, {
      ...{ vcenterId: simVcenterId, name: "vcenter", host: "vcenter.site.test", port: 443, runAsAccountId: "vcenter" },
      status: "connected",
    });
  }

  list(): Summary[] {
    const lastDiscoveredAt = toTimestamp(this.#clock.nowMs());
    return [...this.#known.values()].map((vcenter) => ({ ...vcenter, lastDiscoveredAt }));
  }

  put({ vcenterId, name, host, port, runAsAccountId, trust }: Put): void {
    const other = [...this.#known.values()].find(
      (each) => each.vcenterId !== vcenterId && (each.name === name || (each.host === host && each.port === port)),
    );
    if (other !== undefined)
      throw new Fault("StateConflict", `could not keep the vCenter ${name}: another has its name or address`, {
        evidence: { presentId: other.vcenterId },
      });
    const evidence = { host, port };
    if (host.startsWith(simSilentPrefix)) throw new Fault("VcenterUnreachable", `could not reach the vCenter ${host}`, { evidence });
    if (trust?.kind === "thumbprint" && trust.sha256.replaceAll(":", "").toLowerCase() !== simThumbprint)
      throw new Fault("VcenterUntrusted", `refused to trust the vCenter ${host}`, { evidence: { ...evidence, thumbprint: simThumbprint } });
    const account = simAccounts.find(({ accountId }) => accountId === runAsAccountId);
    if (account === undefined) throw new Fault("NotFound", `there is no credential ${runAsAccountId} on this appliance`);
    if (account.kind !== "vcenter") throw new Fault("InputInvalid", `the credential ${account.name} is not one of a vCenter`);
    if (account.accountId === "vcenter-wrong")
      throw new Fault("VcenterLoginRefused", `the vCenter ${host} refused the login of ${account.name}`, { evidence });
    const isNew = !this.#known.has(vcenterId);
    this.#known.set(vcenterId, { vcenterId, name, host, port, runAsAccountId, status: "connected" });
    if (isNew) for (let number = 1; number <= newMachinesPerVcenter; number++) this.#addMachine(`${vcenterId}-${number}`, { vcenterId });
  }

  remove(vcenterId: string): void {
    const shown = [...this.#sources].filter(([, { discovered }]) => discovered.vcenterId === vcenterId);
    const held = shown.filter(([, { machineId, hasAgent }]) => machineId !== undefined && hasAgent);
    if (held.length > 0)
      throw new Fault("StateConflict", "could not remove the vCenter: machines that it shows are protected", {
        evidence: { vcenterId, machines: held.map(([, { discovered }]) => discovered.name) },
        retry: "never",
      });
    this.#known.delete(vcenterId);
    for (const [infrastructureId] of shown) this.#sources.delete(infrastructureId);
  }

  /** As the real appliance without an account: only that something answers is known. */
  addMachine({ name, address }: Extract<ApplianceOrder, { kind: "addMachine" }>): string {
    const present = [...this.#sources.values()].find(({ discovered }) => discovered.addresses.includes(address))?.discovered;
    if (present?.vcenterId === byHandId) return present.infrastructureId;
    if (present !== undefined)
      throw new Fault("StateConflict", `could not add the machine ${name}: a vCenter shows one at ${address}`, {
        evidence: { address, infrastructureId: present.infrastructureId },
        retry: "never",
      });
    if (address.startsWith(simSilentPrefix))
      throw new Fault("GuestUnreachable", `could not add the machine ${name}: nothing answers at ${address}`, { evidence: { address } });
    return this.#addMachine(name, { vcenterId: byHandId, addresses: [address] });
  }

  #addMachine(name: string, of: { readonly vcenterId: string; readonly addresses?: string[] }): string {
    const number = this.#sources.size;
    const address = `10.${(number >> 16) % 256}.${(number >> 8) % 256}.${number % 256}`;
    const discovered = { ...simDiscovered(name, this.#random), addresses: [address], ...of };
    this.#sources.set(discovered.infrastructureId, new SimSource(discovered, `hello from ${name}`));
    return discovered.infrastructureId;
  }
}
