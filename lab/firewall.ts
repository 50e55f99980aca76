// The zones' packet filters: nothing passes that is not listed, and every refused packet is counted under a name.

import { runCommand } from "../src/base/run-command.ts";
import { internet, landing, line, onprem } from "./addresses.ts";
import { type LabPlace, type Zone, zones } from "./place.ts";
import { inZone } from "./processes.ts";

/** Packets that tried a forbidden way since the lab came up. */
export interface ForbiddenPackets {
  readonly total: number;
  /** Packets by `<zone>/<rule>`, for example `onprem/out`. */
  readonly byRule: Readonly<Record<string, number>>;
  /** The TCP and UDP flows among them, at most 512 a zone. */
  readonly flows: readonly ForbiddenFlow[];
}

export interface ForbiddenFlow {
  readonly zone: Zone;
  readonly from: string;
  readonly to: string;
  readonly protocol: string;
  readonly port: number;
  readonly packets: number;
}

interface Chain {
  readonly hook: "input" | "output" | "forward";
  /** What may pass, as nftables matches; each gets an accept. */
  readonly allow: readonly string[];
  /** Named refusals before the last one, so that the report can say which promise was tried. */
  readonly refuse?: readonly { readonly name: string; readonly match: string }[];
}

/** A client's call, and our own answer by broadcast, which the kernel also shows to us. */
const dhcpIn = (bridge: string): string => `iifname ${bridge} udp sport . udp dport { 68 . 67, 67 . 68 }`;
const dhcpOut = (bridge: string): string => `oifname ${bridge} udp sport 67 udp dport 68`;
const hubDoors = `${internet.hub}-${internet.services}`;

const onpremChains: readonly Chain[] = [
  {
    hook: "input",
    allow: [
      'iifname "lo"',
      dhcpIn("br-on"),
      `iifname br-on ip saddr ${onprem.machines} ip daddr ${onprem.appliance} tcp dport { 443, 9443 }`,
      `iifname br-on ip saddr ${onprem.machines} ip daddr ${onprem.dns} meta l4proto { tcp, udp } th dport 53`,
    ],
    refuse: [{ name: "in-from-line", match: "iifname line0" }],
  },
  {
    hook: "output",
    allow: [
      `oifname "lo" ip daddr { 127.0.0.0/8, ${onprem.appliance} }`,
      'oifname "lo" ip6 daddr ::1',
      `oifname "lo" ip daddr ${onprem.vcenter} tcp dport 443`,
      `oifname "lo" ip daddr ${onprem.dns} meta l4proto { tcp, udp } th dport 53`,
      dhcpOut("br-on"),
      `oifname br-on ip daddr ${onprem.machines} tcp dport { 22, 8080 }`,
      `oifname br-on ip daddr ${onprem.gateway} tcp dport { ${onprem.proxyPort}, ${onprem.proxyWithPasswordPort} }`,
      `oifname line0 ip saddr { ${onprem.network}, ${line.network} } ip daddr ${landing.network} tcp dport 443`,
      `oifname line0 ip daddr ${landing.dns} meta l4proto { tcp, udp } th dport 53`,
    ],
    refuse: [
      { name: "out-public-on-line", match: `oifname line0 ip daddr != { ${landing.network}, ${line.network} }` },
      { name: "out-on-line", match: "oifname line0" },
    ],
  },
  { hook: "forward", allow: [] },
];

const dmzChains: readonly Chain[] = [
  {
    hook: "input",
    allow: ['iifname "lo"', `iifname d-on ip saddr ${onprem.appliance} tcp dport { ${onprem.proxyPort}, ${onprem.proxyWithPasswordPort} }`],
  },
  {
    hook: "output",
    allow: [
      'oifname "lo"',
      `oifname d-net ip daddr ${internet.dns} meta l4proto { tcp, udp } th dport 53`,
      `oifname d-net ip daddr ${hubDoors} tcp dport 443`,
    ],
  },
  { hook: "forward", allow: [] },
];

const internetChains: readonly Chain[] = [
  {
    hook: "input",
    allow: ['iifname "lo"', `iifname i-dmz ip saddr ${internet.dmz} ip daddr ${internet.dns} meta l4proto { tcp, udp } th dport 53`],
  },
  { hook: "output", allow: ['oifname "lo"', `oifname i-land ip daddr ${hubDoors} tcp dport 443`] },
  { hook: "forward", allow: [`iifname i-dmz oifname i-land ip saddr ${internet.dmz} ip daddr ${hubDoors} tcp dport 443`] },
];

const landingChains: readonly Chain[] = [
  {
    hook: "input",
    allow: [
      'iifname "lo"',
      dhcpIn("br-land"),
      `iifname l-line ip saddr { ${onprem.appliance}, ${line.onprem} } ip daddr ${landing.endpoints} tcp dport 443`,
      `iifname l-line ip saddr { ${onprem.appliance}, ${onprem.dns}, ${line.onprem} } ip daddr ${landing.dns} meta l4proto { tcp, udp } th dport 53`,
      `iifname l-pub ip daddr ${hubDoors} tcp dport 443`,
      `iifname br-land ip saddr ${landing.machines} ip daddr ${landing.dns} meta l4proto { tcp, udp } th dport 53`,
    ],
    refuse: [
      { name: "in-public-on-line", match: `iifname l-line ip saddr != { ${onprem.network}, ${line.network} }` },
      { name: "in-from-line", match: "iifname l-line" },
      { name: "in-from-machines", match: "iifname br-land" },
    ],
  },
  {
    hook: "output",
    allow: ['oifname "lo"', dhcpOut("br-land"), `oifname br-land ip daddr ${landing.machines} tcp dport { 22, 8080 }`],
    refuse: [{ name: "out-on-line", match: "oifname l-line" }],
  },
  {
    hook: "forward",
    allow: [],
    refuse: [{ name: "machines-to-site", match: `iifname br-land ip daddr { ${onprem.network}, ${line.network} }` }],
  },
];

const chainsOf: Readonly<Record<Zone, readonly Chain[]>> = {
  onprem: onpremChains,
  dmz: dmzChains,
  internet: internetChains,
  landing: landingChains,
};

/** Frames between the ports of the site's bridge: machines reach nothing past it, and their DHCP calls stop at it. */
const siteBridge = `table bridge watari {
  counter between-ports {}
  set flows { type ipv4_addr . ipv4_addr . inet_proto . inet_service; size 512; flags dynamic; counter; }
  chain forward {
    type filter hook forward priority 0; policy drop
    ether type arp accept
    ether type ip udp dport 67 drop
    ether type ip6 ip6 daddr ff02::/16 drop
    ether type ip ip daddr 224.0.0.0/24 drop
    ether type ip meta l4proto { tcp, udp } add @flows { ip saddr . ip daddr . meta l4proto . th dport }
    counter name between-ports drop
  }
}
`;

/** The zone's rules as nftables text. */
function renderRules(zone: Zone): string {
  const chains = chainsOf[zone];
  const names = chains.flatMap((chain) => [...(chain.refuse ?? []).map((rule) => rule.name), chain.hook]);
  const text = [
    "table inet watari {",
    ...names.map((name) => `  counter ${name} {}`),
    "  counter stray {}",
    "  set flows { type ipv4_addr . ipv4_addr . inet_proto . inet_service; size 512; flags dynamic; counter; }",
    ...chains.flatMap(renderChain),
    "}",
  ];
  return `${text.join("\n")}\n${zone === "onprem" ? siteBridge : ""}`;
}

function renderChain(chain: Chain): readonly string[] {
  const refusal = (name: string): string => `counter name ${name} reject with icmpx type admin-prohibited`;
  return [
    `  chain ${chain.hook} {`,
    `    type filter hook ${chain.hook} priority 0; policy drop`,
    "    ct state established,related accept",
    ...chain.allow.map((match) => `    ${match} accept`),
    // The end of a conversation that was allowed (a late RST or FIN) is not an attempt; an attempt starts with a SYN.
    "    tcp flags & (syn | ack) != syn counter name stray drop",
    // Neighbour discovery, group reports and leases by broadcast never leave their wire; they are chatter, not a way.
    "    ip6 daddr ff02::/16 counter name stray drop",
    "    ip daddr 224.0.0.0/24 counter name stray drop",
    "    ip daddr 255.255.255.255 udp dport { 67, 68 } counter name stray drop",
    "    meta l4proto { tcp, udp } add @flows { ip saddr . ip daddr . meta l4proto . th dport }",
    ...(chain.refuse ?? []).map((rule) => `    ${rule.match} ${refusal(rule.name)}`),
    `    ${refusal(chain.hook)}`,
    "  }",
  ];
}

export async function loadRules(place: LabPlace, zone: Zone): Promise<void> {
  const [program, ...args] = inZone(place, zone, ["nft", "-f", "-"]);
  await runCommand(program, args, { stdin: renderRules(zone) });
}

interface NftCounter {
  readonly name: string;
  readonly packets: number;
}
interface NftElement {
  readonly val: { readonly concat: readonly [string, string, string | number, number] };
  readonly counter: { readonly packets: number };
}
interface NftItem {
  readonly counter?: NftCounter;
  readonly set?: { readonly elem?: readonly { readonly elem: NftElement }[] };
}

/** Reads the counters of all zones. */
export async function forbiddenPackets(place: LabPlace): Promise<ForbiddenPackets> {
  const byRule: Record<string, number> = {};
  const flows: ForbiddenFlow[] = [];
  for (const zone of zones) {
    for (const item of await readRuleset(place, zone)) {
      if (item.counter !== undefined && item.counter.name !== "stray") byRule[`${zone}/${item.counter.name}`] = item.counter.packets;
      for (const { elem } of item.set?.elem ?? []) {
        const [from, to, protocol, port] = elem.val.concat;
        flows.push({ zone, from, to, protocol: String(protocol), port, packets: elem.counter.packets });
      }
    }
  }
  return { total: Object.values(byRule).reduce((sum, packets) => sum + packets, 0), byRule, flows };
}

async function readRuleset(place: LabPlace, zone: Zone): Promise<readonly NftItem[]> {
  const [program, ...args] = inZone(place, zone, ["nft", "-j", "list", "ruleset"]);
  const result = await runCommand(program, args);
  return (JSON.parse(result.stdout) as { readonly nftables: readonly NftItem[] }).nftables;
}
