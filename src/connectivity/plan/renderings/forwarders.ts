// Conditional forwarders: each private zone asked of the resolver that knows it, in the words of each DNS server. Pure.

export const dnsTtlSeconds = 300;

export interface Forwarding {
  readonly zones: readonly string[];
  readonly servers: readonly string[];
}

export interface ForwarderForm {
  readonly fileName: string;
  readonly write: (forwarding: Forwarding) => readonly string[];
}

export const powerShellHead: readonly string[] = ["#Requires -Modules DnsServer", "$ErrorActionPreference = 'Stop'"];

/** A validating resolver finds no chain of trust for a zone that is private, and unbound drops private answers by default. */
export function trustedByUnbound(zones: readonly string[]): readonly string[] {
  return zones.flatMap((zone) => [`    domain-insecure: "${zone}."`, `    private-domain: "${zone}."`]);
}

export const forwarderForms = {
  bind: {
    fileName: "named.conf.watari",
    write: ({ zones, servers }) =>
      zones.map(
        (zone) => `zone "${zone}" { type forward; forward only; forwarders { ${servers.map((server) => `${server};`).join(" ")} }; };`,
      ),
  },
  unbound: {
    fileName: "watari.conf",
    write: ({ zones, servers }) => [
      "server:",
      ...trustedByUnbound(zones),
      // unbound answers some domains itself ("test.", "home.arpa."); a zone below them must be let through.
      ...zones.map((zone) => `    local-zone: "${zone}." transparent`),
      ...zones.flatMap((zone) => ["forward-zone:", `    name: "${zone}."`, ...servers.map((server) => `    forward-addr: ${server}`)]),
    ],
  },
  dnsmasq: {
    fileName: "watari.conf",
    write: ({ zones, servers }) => [
      ...zones.map((zone) => `rebind-domain-ok=/${zone}/`),
      ...zones.flatMap((zone) => servers.map((server) => `server=/${zone}/${server}`)),
    ],
  },
  coredns: {
    fileName: "Corefile",
    write: ({ zones, servers }) =>
      zones.flatMap((zone) => [`${zone}:53 {`, "    errors", `    forward . ${servers.join(" ")}`, `    cache ${dnsTtlSeconds}`, "}"]),
  },
  "windows-dns": {
    fileName: "watari-dns.ps1",
    write: ({ zones, servers }) => {
      const masters = servers.map((server) => `'${server}'`).join(",");
      const each = (zone: string): readonly string[] => [
        `if (Get-DnsServerZone -Name '${zone}' -ErrorAction SilentlyContinue) {`,
        `  Set-DnsServerConditionalForwarderZone -Name '${zone}' -MasterServers ${masters}`,
        "} else {",
        `  Add-DnsServerConditionalForwarderZone -Name '${zone}' -MasterServers ${masters}`,
        "}",
      ];
      return [...powerShellHead, ...zones.flatMap(each)];
    },
  },
} as const satisfies Record<string, ForwarderForm>;

/** Zones to forward for private names: from the label "privatelink" on; of a name without it, the name alone, so that nothing else of its zone is touched. */
export function zonesToForward(names: readonly string[]): readonly string[] {
  const zones = names.map((name) => /(?:^|\.)(privatelink\..+)$/.exec(name)?.[1] ?? name);
  return [...new Set(zones)].toSorted();
}
