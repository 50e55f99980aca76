// The forms that a plan can be written in, by name.

import { Fault } from "../../../contract/errors.ts";
import { renderFirewallCsv, renderFirewallMarkdown, renderNftables, renderSquid } from "./filters.ts";
import { renderBind, renderCoreDns, renderDnsmasq, renderHostsFile, renderUnbound, renderWindowsDns } from "./names.ts";
import {
  renderApt,
  renderBypass,
  renderNoProxyList,
  renderPac,
  renderRegistry,
  renderSystemd,
  renderTopology,
  renderWinInet,
} from "./proxies.ts";
import type { RenderInput, Rendered } from "./rendering.ts";

export interface Format {
  readonly name: string;
  readonly summary: string;
  /** true: it is written for one role; the others are for the whole plan. */
  readonly isForRole: boolean;
  readonly render: (input: RenderInput) => Rendered;
}

export const formats: readonly Format[] = [
  { name: "hosts", summary: "hosts file with every private and site name", isForRole: false, render: renderHostsFile },
  { name: "bind", summary: "BIND: zones with their files, or forwarders", isForRole: false, render: renderBind },
  { name: "unbound", summary: "unbound: local data, or forward zones", isForRole: false, render: renderUnbound },
  { name: "dnsmasq", summary: "dnsmasq: host records, or servers", isForRole: false, render: renderDnsmasq },
  { name: "windows-dns", summary: "PowerShell for a Windows DNS server", isForRole: false, render: renderWindowsDns },
  { name: "coredns", summary: "CoreDNS: server blocks for a Corefile", isForRole: false, render: renderCoreDns },
  { name: "no-proxy", summary: "value of NO_PROXY", isForRole: true, render: renderNoProxyList },
  { name: "pac", summary: "proxy auto-configuration for browsers", isForRole: true, render: renderPac },
  { name: "bypass", summary: "semicolon list for Windows and the appliance's page", isForRole: true, render: renderBypass },
  { name: "registry", summary: "ProxyAddress and ProxyBypassUrls of the classic appliance", isForRole: true, render: renderRegistry },
  { name: "wininet", summary: "Internet settings of Windows' system account", isForRole: true, render: renderWinInet },
  { name: "systemd", summary: "drop-in with proxy and NO_PROXY for units", isForRole: true, render: renderSystemd },
  { name: "apt", summary: "apt's proxy and its exceptions", isForRole: true, render: renderApt },
  { name: "topology", summary: "the document that Watari's own programs obey", isForRole: true, render: renderTopology },
  { name: "squid", summary: "allow list for squid", isForRole: false, render: renderSquid },
  { name: "nftables", summary: "packet filter for the router between the zones", isForRole: false, render: renderNftables },
  { name: "firewall-csv", summary: "request sheet for the network team, for a spreadsheet", isForRole: false, render: renderFirewallCsv },
  { name: "firewall-md", summary: "the same as a Markdown table", isForRole: false, render: renderFirewallMarkdown },
];

export function findFormat(name: string): Format {
  const format = formats.find((each) => each.name === name);
  if (format !== undefined) return format;
  throw new Fault("InputInvalid", `there is no form ${JSON.stringify(name.slice(0, 40))}`, {
    evidence: { forms: formats.map((each) => each.name) },
    action: "take one of these forms",
  });
}
