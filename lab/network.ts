// The zones' cables: namespaces, bridges, links, routes, and nothing in the host's own network.

import { mkdir, readdir, rm, rmdir, writeFile } from "node:fs/promises";
import { runCommand, tryCommand } from "../src/base/run-command.ts";
import { internet, landing, line, onprem } from "./addresses.ts";
import { loadRules } from "./firewall.ts";
import { type LabPlace, namespaceOf, type Zone, zones } from "./place.ts";
import { inZone } from "./processes.ts";

/** Each zone's resolver, as its programs find it in /etc/resolv.conf. */
export const resolvers: Readonly<Record<Zone, string>> = {
  onprem: onprem.dns,
  dmz: internet.dns,
  internet: internet.dns,
  landing: landing.dns,
};

/** Filters are loaded before the first cable is plugged in, so that no packet ever passes unfiltered. */
export async function buildNetwork(place: LabPlace): Promise<void> {
  for (const zone of zones) {
    const namespace = namespaceOf(place, zone);
    await runCommand("ip", ["netns", "add", namespace]);
    await prepareZone(place, zone);
    await loadRules(place, zone);
    await mkdir(`/etc/netns/${namespace}`, { recursive: true });
    await writeFile(`/etc/netns/${namespace}/resolv.conf`, `nameserver ${resolvers[zone]}\noptions timeout:2 attempts:2\n`);
  }
  await plugCables(place);
  await Promise.all(zones.map(async (zone) => await configure(place, zone)));
}

/** Forwarding is on everywhere so that a stray packet meets a counting rule instead of vanishing. IPv6 is off. */
async function prepareZone(place: LabPlace, zone: Zone): Promise<void> {
  const settings = [
    "net/ipv6/conf/all/disable_ipv6=1",
    "net/ipv6/conf/default/disable_ipv6=1",
    "net/ipv6/conf/lo/disable_ipv6=0",
    "net/ipv4/ip_forward=1",
    "net/ipv4/conf/all/rp_filter=0",
    "net/ipv4/conf/default/rp_filter=0",
    "net/netfilter/nf_conntrack_tcp_be_liberal=1",
    "net/bridge/bridge-nf-call-iptables=0",
    "net/bridge/bridge-nf-call-ip6tables=0",
    "net/bridge/bridge-nf-call-arptables=0",
  ];
  const script = settings.map((setting) => {
    const [name, value] = setting.split("=");
    return `[ ! -e /proc/sys/${name} ] || echo ${value} > /proc/sys/${name}`;
  });
  const [program, ...args] = inZone(place, zone, ["sh", "-ec", script.join("\n")]);
  await runCommand(program, args);
}

async function plugCables(place: LabPlace): Promise<void> {
  const cables: readonly (readonly [Zone, string, Zone, string])[] = [
    ["onprem", "dmz0", "dmz", "d-on"],
    ["dmz", "d-net", "internet", "i-dmz"],
    ["internet", "i-land", "landing", "l-pub"],
    ["onprem", "line0", "landing", "l-line"],
  ];
  for (const [zoneA, nameA, zoneB, nameB] of cables) {
    const ends = [nameA, "netns", namespaceOf(place, zoneA), "type", "veth", "peer", "name", nameB, "netns", namespaceOf(place, zoneB)];
    await runCommand("ip", ["link", "add", ...ends]);
  }
}

const configurations: Readonly<Record<Zone, readonly string[]>> = {
  onprem: [
    "link add br-on type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
    "link set dmz0 master br-on",
    ...[onprem.appliance, onprem.vcenter, onprem.dns].map((address) => `addr add ${address}/24 dev br-on`),
    `addr add ${line.onprem}/30 dev line0`,
    ...["lo", "dmz0", "line0", "br-on"].map((name) => `link set ${name} up`),
    `route add ${landing.network} via ${line.landing} src ${onprem.appliance}`,
    // While the line is out, private addresses are unreachable; they must not wander off by the default route.
    `route add unreachable ${landing.network} metric 4000`,
    `route add default via ${onprem.gateway} src ${onprem.appliance}`,
  ],
  dmz: [
    `addr add ${onprem.gateway}/24 dev d-on`,
    `addr add ${internet.dmz}/30 dev d-net`,
    ...["lo", "d-on", "d-net"].map((name) => `link set ${name} up`),
    `route add default via ${internet.router}`,
  ],
  internet: [
    `addr add ${internet.router}/30 dev i-dmz`,
    `addr add ${internet.doorRouter}/30 dev i-land`,
    `addr add ${internet.dns}/32 dev lo`,
    ...["lo", "i-dmz", "i-land"].map((name) => `link set ${name} up`),
    ...internet.hubAddresses.map((address) => `route add ${address}/32 via ${internet.doorHub} src ${internet.dns}`),
  ],
  landing: [
    "link add br-land type bridge forward_delay 0 stp_state 0 mcast_snooping 0",
    `addr add ${landing.bridge}/24 dev br-land`,
    `addr add ${landing.dns}/24 dev br-land`,
    `addr add ${line.landing}/30 dev l-line`,
    `addr add ${internet.doorHub}/30 dev l-pub`,
    ...internet.hubAddresses.map((address) => `addr add ${address}/32 dev l-pub`),
    ...["lo", "l-line", "l-pub", "br-land"].map((name) => `link set ${name} up`),
    `route add ${onprem.network} via ${line.onprem}`,
    `route add unreachable ${onprem.network} metric 4000`,
    `route add default via ${internet.doorRouter} src ${internet.hub}`,
  ],
};

async function configure(place: LabPlace, zone: Zone): Promise<void> {
  await runCommand("ip", ["-n", namespaceOf(place, zone), "-batch", "-"], { stdin: configurations[zone].join("\n") });
}

/** Plugs a tap for a machine into a zone's bridge. */
export async function addTap(place: LabPlace, zone: "onprem" | "landing", tap: string): Promise<void> {
  const bridge = zone === "onprem" ? "br-on" : "br-land";
  const commands = [`tuntap add dev ${tap} mode tap`, `link set ${tap} master ${bridge}`, `link set ${tap} up`];
  await runCommand("ip", ["-n", namespaceOf(place, zone), "-batch", "-"], { stdin: commands.join("\n") });
}

/** The names under /run/netns that carry the lab's prefix: the four zones, and what the hub may have made under it. */
export async function labNamespaces(place: LabPlace): Promise<readonly string[]> {
  const names = await readdir("/run/netns").catch(() => []); // The folder comes with the first namespace.
  return names.filter((name) => name.startsWith(`${place.prefix}-`));
}

/** Removes the namespaces and with them every cable, bridge and tap. Their processes must have ended. */
export async function removeNetwork(place: LabPlace): Promise<void> {
  for (const namespace of await labNamespaces(place)) await tryCommand("ip", ["netns", "del", namespace]);
  for (const zone of zones) await rm(`/etc/netns/${namespaceOf(place, zone)}`, { recursive: true, force: true });
  await rmdir("/etc/netns").catch(() => undefined); // Others may have folders in it.
}
