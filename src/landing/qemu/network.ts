// Wires landed machines: a network namespace of its own for isolated ones, a bridge that is there already for named ones.

import { rm } from "node:fs/promises";
import { BlockList, isIPv4 } from "node:net";
import { networkInterfaces } from "node:os";
import type { Clock } from "../../base/clock.ts";
import { runCommand, tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";
import { startDetached } from "./detached.ts";
import type { MachinePaths, MachineRecord } from "./machine-record.ts";
import { findProcess, killProcess } from "./process-identity.ts";
import { subnetFor, type GuestSubnet } from "./subnet.ts";

/** What a network's name stands for here. */
export type NamedNetwork =
  /** A bridge of the host; others give addresses there. Their dnsmasq leases file tells which. */
  | { readonly kind: "bridge"; readonly bridge: string; readonly leasesFile?: string }
  /** QEMU's own address translation: the guest reaches out, ports of the guest are reached by forwards on loopback. */
  | {
      readonly kind: "user";
      readonly forwards: readonly { readonly hostPort: number; readonly guestPort: number }[];
      /** The guest reaches nothing; its forwards still lead to it. */
      readonly isSealed?: boolean;
    };

export interface Wiring {
  /** For -netdev, one per card. */
  readonly cards: readonly string[];
  /** A process whose network namespace the machine runs in; undefined for this program's own. */
  readonly namespacePid: number | undefined;
}

export interface NetworkOptions {
  readonly paths: MachinePaths;
  readonly record: MachineRecord;
  readonly networks: Readonly<Record<string, NamedNetwork>>;
  readonly clock: Clock;
  readonly signal?: AbortSignal;
}

const bridgeName = "watari0";
const startMsMax = 15_000;

/** Makes the machine's network; what is there already is kept. */
export async function openNetwork(options: NetworkOptions): Promise<Wiring> {
  const { record, paths } = options;
  const taps = record.nics.map((_, index) => paths.tap(index));
  const cards = taps.map((tap) => `tap,ifname=${tap},script=no,downscript=no`);
  if (record.network.kind === "isolated") return { cards, namespacePid: await openNamespace(options, taps) };
  const network = namedNetwork(options);
  if (network.kind === "user") {
    return { cards: userCards(record.nics, network), namespacePid: undefined };
  }
  for (const tap of taps) await plug(tap, network.bridge, options);
  return { cards, namespacePid: undefined };
}

/** A card whose address is known keeps it: the translation takes the address's own network on, as the source's network was. */
export function userCards(nics: MachineRecord["nics"], network: Extract<NamedNetwork, { kind: "user" }>): readonly string[] {
  const seal = network.isSealed === true ? ",restrict=on" : "";
  return nics.map(({ mac, address }, index) => {
    const { guestAddress, ...subnet } = subnetFor(mac, address);
    const range =
      guestAddress === undefined
        ? ""
        : `,net=${subnet.networkAddress}/${subnet.prefixLength},host=${subnet.ownAddress},dns=${subnet.otherAddress}`;
    const lease = guestAddress === undefined ? "" : `,dhcpstart=${guestAddress}`;
    const forwards = network.forwards.map(
      ({ hostPort, guestPort }) => `,hostfwd=tcp:127.0.0.1:${hostPort}-${guestAddress ?? ""}:${guestPort}`,
    );
    return `user${seal}${range}${lease}${index === 0 ? forwards.join("") : ""}`;
  });
}

/** Removes what openNetwork made; for good when it is called again. */
export async function closeNetwork(options: Omit<NetworkOptions, "networks">): Promise<void> {
  const { paths, record, clock } = options;
  await killProcess(paths.netPidFile, `${paths.folder}/`, clock);
  await rm(paths.netPidFile, { force: true });
  for (const index of record.nics.keys()) {
    if ((await tryCommand("ip", ["link", "show", "dev", paths.tap(index)])).exitCode === 0)
      await runCommand("ip", ["link", "delete", "dev", paths.tap(index)]);
  }
}

/** The process that holds the isolated network, undefined when there is none. */
export async function findNamespace(paths: MachinePaths): Promise<number | undefined> {
  return await findProcess(paths.netPidFile, `${paths.folder}/`);
}

/** Files where the machine's addresses appear, and addresses that it is known to have. */
export function addressSources(options: Pick<NetworkOptions, "paths" | "record" | "networks">): {
  readonly leasesFile: string | undefined;
  readonly addresses: readonly string[];
} {
  const { record, paths } = options;
  const known = record.nics.flatMap(({ address }) => (address === undefined ? [] : [address.replace(/\/.*$/, "")]));
  if (record.network.kind === "isolated") return { leasesFile: paths.leases, addresses: known };
  const network = namedNetwork(options);
  if (network.kind === "user") return { leasesFile: undefined, addresses: [] };
  return { leasesFile: network.leasesFile, addresses: known.filter(isOnLink(network.bridge)) };
}

/** The source's address means the landed machine only where the bridge's own subnet holds it; anywhere else it is somebody else's. */
function isOnLink(bridge: string): (address: string) => boolean {
  const subnets = new BlockList();
  for (const { cidr, family } of networkInterfaces()[bridge] ?? []) {
    const [base = "", length = ""] = cidr?.split("/") ?? [];
    if (family === "IPv4" && base !== "") subnets.addSubnet(base, Number(length), "ipv4");
  }
  return (address) => isIPv4(address) && subnets.check(address, "ipv4");
}

export function namedNetwork({ record, networks }: Pick<NetworkOptions, "record" | "networks">): NamedNetwork {
  const name = record.network.kind === "named" ? record.network.name : "";
  const network = Object.hasOwn(networks, name) ? networks[name] : undefined;
  if (network === undefined) {
    throw new Fault("NotFound", `could not attach machine ${record.name}: there is no network ${JSON.stringify(name)}`, {
      evidence: { networks: Object.keys(networks) },
    });
  }
  return network;
}

async function plug(tap: string, bridge: string, { paths, record }: NetworkOptions): Promise<void> {
  const present = await tryCommand("ip", ["link", "show", "dev", tap]);
  if (present.exitCode !== 0) await runCommand("ip", ["tuntap", "add", "dev", tap, "mode", "tap", "user", ownUser()]);
  const attached = await tryCommand("ip", [
    "link",
    "set",
    "dev",
    tap,
    "master",
    bridge,
    "alias",
    `watari ${paths.folder}`.slice(0, 250),
    "up",
  ]);
  if (attached.exitCode !== 0) {
    throw new Fault("LandingFailed", `could not attach machine ${record.name} to the bridge ${bridge}`, {
      causes: ["the bridge does not exist in the hub's network namespace"],
      evidence: { output: attached.stderr.slice(-500) },
    });
  }
}

/** A fresh namespace that lives as long as its own DHCP server, which is also its keeper. */
async function openNamespace(options: NetworkOptions, taps: readonly string[]): Promise<number> {
  const { paths, record, clock, signal } = options;
  const present = await findNamespace(paths);
  if (present !== undefined) return present;
  const subnets = record.nics.map(({ mac, address }) => subnetFor(mac, address));
  const script = 'printf "%s\\n" "$1" | ip -batch - ; shift; exec dnsmasq "$@"';
  const outcome = await startDetached({
    command: ["unshare", "--net", "sh", "-eu", "-c", script, "network", namespaceBatch(taps, subnets), ...dhcpArguments(paths, subnets)],
    logPath: `${paths.folder}/network.log`,
    isReady: async () => (await findNamespace(paths)) !== undefined,
    readyMsMax: startMsMax,
    clock,
    ...(signal === undefined ? {} : { signal }),
  });
  const pid = await findNamespace(paths);
  if (outcome.kind === "ready" && pid !== undefined) return pid;
  const output = outcome.kind === "ended" ? outcome.output : "it ended at once";
  throw new Fault("LandingFailed", `could not make the isolated network of machine ${record.name}`, { evidence: { output } });
}

function namespaceBatch(taps: readonly string[], subnets: readonly GuestSubnet[]): string {
  const own = new Set(subnets.map(({ ownAddress, prefixLength }) => `${ownAddress}/${prefixLength}`));
  return [
    "link set lo up",
    `link add ${bridgeName} type bridge`,
    ...[...own].map((address) => `addr add ${address} dev ${bridgeName}`),
    `link set ${bridgeName} up`,
    ...taps.flatMap((tap) => [`tuntap add dev ${tap} mode tap user ${ownUser()}`, `link set dev ${tap} master ${bridgeName} up`]),
  ].join("\n");
}

/** The emulator opens the tap with its user's right alone. */
function ownUser(): string {
  return String(process.getuid?.() ?? 0);
}

function dhcpArguments(paths: MachinePaths, subnets: readonly GuestSubnet[]): readonly string[] {
  const ranges = new Set(subnets.map(({ rangeFirst, rangeLast, netmask }) => `--dhcp-range=${rangeFirst},${rangeLast},${netmask},1h`));
  return [
    ...["--conf-file=/dev/null", "--keep-in-foreground", "--no-hosts", "--no-resolv", "--port=0", "--no-ping", "--dhcp-authoritative"],
    ...[`--interface=${bridgeName}`, "--bind-interfaces", "--user=nobody", "--log-facility=-"],
    ...[`--dhcp-leasefile=${paths.leases}`, `--pid-file=${paths.netPidFile}`],
    ...ranges,
    ...subnets.flatMap(({ mac, guestAddress }) => (guestAddress === undefined ? [] : [`--dhcp-host=${mac},${guestAddress}`])),
  ];
}
