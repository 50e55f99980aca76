// Renderings for those who open ways: the proxy's allow list, a packet filter, and a request for the network team.

import type { PlanCell } from "../matrix.ts";
import { textFile, type RenderInput, type Rendered } from "./rendering.ts";

/** One way that has to be open: from whom, to where, what for. */
interface Way {
  readonly role: string;
  readonly sources: readonly string[];
  readonly name: string;
  /** Addresses or ranges; empty when only the name is known. */
  readonly targets: readonly string[];
  readonly protocol: "tcp" | "udp";
  readonly port: number;
  readonly why: string;
  readonly need: string;
  /** Who lets it pass: the proxy, or the filters between the zones. */
  readonly by: "filter" | "proxy";
}

/** Every cell as a way, without those inside one zone; proxied ones are the proxy's, and one way to the proxy is the filters'. */
function waysOf({ plan, matrix }: RenderInput): readonly Way[] {
  const ways = matrix.cells.flatMap((cell): readonly Way[] => {
    const { endpoint } = cell;
    if (endpoint.kind !== "public" && endpoint.zone === cell.role.zone) return [];
    return [toWay(cell)];
  });
  const doors = matrix.roles.flatMap((role): readonly Way[] => {
    const proxy = plan.proxies[plan.zones[role.zone]?.proxy ?? ""];
    if (proxy === undefined || role.role === "agent") return [];
    const { hostname, port, protocol } = new URL(proxy.url);
    const isAddress = /^[0-9.]+$/.test(hostname);
    return [
      {
        ...{ role: role.id, sources: role.sources, name: hostname, targets: isAddress ? [hostname] : [], protocol: "tcp" },
        port: port === "" ? (protocol === "https:" ? 443 : 80) : Number(port),
        ...{ why: "the proxy, the only way out", need: "always", by: "filter" },
      },
    ];
  });
  return [...ways, ...doors];
}

function toWay({ role, endpoint, decision }: PlanCell): Way {
  const targets = endpoint.kind === "private" ? [endpoint.address ?? []].flat() : endpoint.kind === "site" ? endpoint.addresses : [];
  return {
    ...{ role: role.id, sources: role.sources, name: endpoint.name, targets, protocol: endpoint.protocol, port: endpoint.port },
    ...{ why: endpoint.why, need: endpoint.need, by: decision === "proxy" ? "proxy" : "filter" },
  };
}

/** Lines for squid: only these sources, only CONNECT, only these names; private names never, even if someone asks. */
export function renderSquid(input: RenderInput): Rendered {
  const ways = waysOf(input).filter(({ by }) => by === "proxy");
  const privateNames = [...new Set(input.matrix.endpoints.flatMap((endpoint) => (endpoint.kind === "private" ? [endpoint.name] : [])))];
  const perRole = [...Map.groupBy(ways, ({ role }) => role)];
  const lines = [
    "acl watari_connect method CONNECT",
    ...(privateNames.length === 0 ? [] : [`acl watari_private dstdomain -n ${privateNames.join(" ")}`, "http_access deny watari_private"]),
    ...perRole.flatMap(([role, list], index) => {
      const ports = [...new Set(list.map(({ port }) => port))];
      return [
        `# ${role}`,
        `acl watari_from_${index} src ${list[0]?.sources.join(" ")}`,
        ...ports.flatMap((port) => [
          `acl watari_names_${index}_${port} dstdomain -n ${squidNames(list.filter((way) => way.port === port)).join(" ")}`,
          `acl watari_port_${index}_${port} port ${port}`,
          `http_access allow watari_connect watari_from_${index} watari_names_${index}_${port} watari_port_${index}_${port}`,
        ]),
      ];
    }),
  ];
  return { files: [textFile("watari-squid.conf", lines)], omitted: [] };
}

/** squid refuses a list that names both a suffix and a name below it. */
function squidNames(ways: readonly Way[]): readonly string[] {
  const names = [...new Set(ways.map(({ name }) => name))];
  return names.filter((name) => !names.some((other) => other !== name && other.startsWith(".") && `.${name}`.endsWith(other)));
}

/**
 * A table of its own for the router between the zones. From appliance and process servers nothing passes but what is listed;
 * agents and operators stand among other machines, whose traffic is not the plan's business.
 */
export function renderNftables(input: RenderInput): Rendered {
  const ways = waysOf(input).filter(({ by }) => by === "filter");
  const usable = ways.filter(({ targets }) => targets.length > 0);
  const own = input.matrix.roles.filter(({ role }) => role === "appliance" || role === "process-server");
  const sources = [...new Set(own.flatMap((role) => role.sources))];
  const rules = usable.flatMap((way) =>
    families(way).map(
      ({ family, from, to }) =>
        `    ${family} saddr ${setOf(from)} ${family} daddr ${setOf(to)} ${way.protocol} dport ${way.port} accept comment "${comment(way)}"`,
    ),
  );
  const closing = families({ sources, targets: sources }).map(
    ({ family, from }) => `    ${family} saddr ${setOf(from)} counter drop comment "not in the plan"`,
  );
  return {
    files: [
      textFile("watari.nft", [
        "table inet watari_plan {",
        "  chain forward {",
        "    type filter hook forward priority filter; policy accept;",
        "    ct state established,related accept",
        "    icmp type destination-unreachable accept",
        "    icmpv6 type { destination-unreachable, packet-too-big } accept",
        ...rules,
        ...closing,
        "  }",
        "}",
      ]),
    ],
    omitted: ways
      .filter(({ targets }) => targets.length === 0)
      .map(({ name }) => ({ entry: name, reason: "a packet filter needs its address, and the plan does not know it" })),
  };
}

interface Family {
  readonly family: "ip" | "ip6";
  readonly from: readonly string[];
  readonly to: readonly string[];
}

function families({ sources, targets }: Pick<Way, "sources" | "targets">): readonly Family[] {
  const isSix = (text: string): boolean => text.includes(":");
  return (["ip", "ip6"] as const)
    .map((family) => ({
      family,
      from: sources.filter((text) => isSix(text) === (family === "ip6")),
      to: targets.filter((text) => isSix(text) === (family === "ip6")),
    }))
    .filter(({ from, to }) => from.length > 0 && to.length > 0);
}

function setOf(addresses: readonly string[]): string {
  return addresses.length === 1 ? (addresses[0] ?? "") : `{ ${addresses.join(", ")} }`;
}

/** nftables takes 128 bytes of comment. */
function comment({ role, name, why }: Way): string {
  return `${role} to ${name}: ${why}`.replaceAll('"', "'").slice(0, 120);
}

const sheetHead = ["From", "Source addresses", "To", "Target addresses", "Protocol", "Port", "Through", "When", "Why"] as const;

function sheetRows(input: RenderInput): readonly (readonly string[])[] {
  return waysOf(input).map((way) => [
    way.role,
    way.sources.join(" "),
    way.name.startsWith(".") ? `*${way.name}` : way.name,
    way.targets.join(" ") || (way.by === "proxy" ? "resolved by the proxy" : "not known yet"),
    way.protocol.toUpperCase(),
    String(way.port),
    way.by === "proxy" ? "proxy" : "firewall",
    way.need,
    way.why,
  ]);
}

/** RFC 4180. A cell that a spreadsheet would take for a formula gets a quote in front. */
export function renderFirewallCsv(input: RenderInput): Rendered {
  const cell = (text: string): string => `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  const rows = [sheetHead, ...sheetRows(input)].map((row) => row.map(cell).join(","));
  return {
    files: [{ name: "firewall-request.csv", bytes: new TextEncoder().encode(rows.map((row) => `${row}\r\n`).join("")) }],
    omitted: [],
  };
}

export function renderFirewallMarkdown(input: RenderInput): Rendered {
  const row = (cells: readonly string[]): string => `| ${cells.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`;
  const lines = [row(sheetHead), row(sheetHead.map(() => "---")), ...sheetRows(input).map(row)];
  return { files: [textFile("firewall-request.md", lines)], omitted: [] };
}
