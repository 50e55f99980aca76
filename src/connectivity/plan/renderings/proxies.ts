// Renderings of the proxy and of what goes past it: for shells and services, browsers, Windows, apt.

import { renderBypassList, renderNoProxy } from "../../render.ts";
import { parseTopology } from "../../topology.ts";
import { topologyOf, type PlanRole } from "../matrix.ts";
import { textFile, windowsFile, type RenderInput, type Rendered } from "./rendering.ts";

interface ProxySettings {
  /** undefined: this role has no proxy. */
  readonly url: string | undefined;
  readonly noProxy: Omit<Rendered, "files"> & { readonly text: string };
  readonly bypass: Omit<Rendered, "files"> & { readonly text: string };
}

function settingsOf({ plan }: RenderInput, role: PlanRole): ProxySettings {
  const topology = parseTopology(topologyOf(plan, role));
  const url = topology.proxy === undefined ? undefined : new URL(topology.proxy.url).origin;
  return { url, noProxy: renderNoProxy(topology), bypass: renderBypassList(topology) };
}

const noProxyHere = "the role's zone has no proxy";

function withProxy(input: RenderInput, write: (settings: ProxySettings & { readonly url: string }) => Rendered): Rendered {
  const settings = settingsOf(input, input.role);
  const { url } = settings;
  if (url === undefined) return { files: [], omitted: [{ entry: input.role.id, reason: noProxyHere }] };
  return write({ ...settings, url });
}

export function renderNoProxyList(input: RenderInput): Rendered {
  const { noProxy } = settingsOf(input, input.role);
  return { files: [textFile("no-proxy", [noProxy.text])], omitted: noProxy.omitted };
}

export function renderBypass(input: RenderInput): Rendered {
  const { bypass } = settingsOf(input, input.role);
  return { files: [textFile("bypass-list", [bypass.text])], omitted: bypass.omitted };
}

/** A drop-in for units that make outgoing connections. */
export function renderSystemd(input: RenderInput): Rendered {
  return withProxy(input, ({ url, noProxy }) => {
    const pairs = [`HTTPS_PROXY=${url}`, `HTTP_PROXY=${url}`, `NO_PROXY=${noProxy.text}`];
    // Programs disagree on upper and lower case; both are read.
    const both = pairs.flatMap((pair) => [pair, pair.replace(/^\w+/, (name) => name.toLowerCase())]);
    // systemd expands "%": no name or URL of a plan may hold one unescaped.
    const lines = both.map((pair) => `Environment="${pair.replaceAll("%", "%%")}"`);
    return { files: [textFile("50-watari-proxy.conf", ["[Service]", ...lines])], omitted: noProxy.omitted };
  });
}

export function renderApt(input: RenderInput): Rendered {
  return withProxy(input, ({ url, noProxy }) => {
    const names = noProxy.text.split(",").filter((name) => name !== "");
    const direct = names.filter((name) => !name.startsWith("."));
    return {
      files: [
        textFile("95watari-proxy", [
          `Acquire::http::Proxy "${url}";`,
          `Acquire::https::Proxy "${url}";`,
          ...direct.flatMap((name) => [`Acquire::http::Proxy::${name} "DIRECT";`, `Acquire::https::Proxy::${name} "DIRECT";`]),
        ]),
      ],
      omitted: [
        ...noProxy.omitted,
        ...names.filter((name) => name.startsWith(".")).map((entry) => ({ entry, reason: "apt knows exact hosts only" })),
      ],
    };
  });
}

/**
 * A proxy auto-configuration file. It never asks DNS: a private name must not depend on which resolver the browser has, so
 * ranges are compared with hosts that are addresses already.
 */
export function renderPac(input: RenderInput): Rendered {
  const document = topologyOf(input.plan, input.role);
  const topology = parseTopology(document);
  const names = [...new Set([...topology.privateNames, ...topology.siteNames])];
  const ranges = [...new Set([...topology.privateRanges.texts, ...topology.siteRanges.texts])];
  const v4 = ranges.filter((range) => !range.includes(":"));
  const out = topology.proxy === undefined ? "DIRECT" : proxyWord(topology.proxy.url);
  const lines = [
    "function FindProxyForURL(url, host) {",
    "  host = host.toLowerCase();",
    `  var names = ${JSON.stringify(names.filter((name) => !name.startsWith(".")))};`,
    '  for (var i = 0; i < names.length; i++) if (host === names[i]) return "DIRECT";',
    `  var suffixes = ${JSON.stringify(names.filter((name) => name.startsWith(".")))};`,
    '  for (var j = 0; j < suffixes.length; j++) if (dnsDomainIs(host, suffixes[j])) return "DIRECT";',
    "  if (/^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+$/.test(host)) {",
    ...v4.map((range) => `    if (isInNet(host, ${networkAndMask(range)})) return "DIRECT";`),
    "  }",
    `  return ${JSON.stringify(out)};`,
    "}",
  ];
  return {
    files: [textFile("proxy.pac", lines)],
    omitted: ranges
      .filter((range) => range.includes(":"))
      .map((entry) => ({ entry, reason: "the functions of a PAC file know no IPv6 ranges" })),
  };
}

function proxyWord(url: string): string {
  const { protocol, host, port } = new URL(url);
  const withPort = port === "" ? `${host}:${protocol === "https:" ? 443 : 80}` : host;
  return `${protocol === "https:" ? "HTTPS" : "PROXY"} ${withPort}`;
}

/** "10.200.0.0/24" as two arguments of isInNet. */
function networkAndMask(range: string): string {
  const [address = "", bits = "32"] = range.split("/");
  const mask = Array.from({ length: 4 }, (_, index) => 256 - 2 ** (8 - Math.min(8, Math.max(0, Number(bits) - 8 * index))));
  return `"${address}", "${mask.join(".")}"`;
}

/** What the classic appliance reads beside its own page: address of the proxy, and the URLs that go past it. */
export function renderRegistry(input: RenderInput): Rendered {
  return withProxy(input, ({ url, bypass }) => ({
    files: [
      windowsFile("watari-proxy.reg", [
        "Windows Registry Editor Version 5.00",
        "",
        "[HKEY_LOCAL_MACHINE\\SOFTWARE\\Microsoft\\Azure Site Recovery\\ProxySettings]",
        `"ProxyAddress"="${escapeRegistry(url)}"`,
        `"ProxyBypassUrls"="${escapeRegistry(bypass.text)}"`,
      ]),
    ],
    omitted: bypass.omitted,
  }));
}

/** The Internet settings of the LocalSystem account, under which the appliance's services run. */
export function renderWinInet(input: RenderInput): Rendered {
  return withProxy(input, ({ url, bypass }) => ({
    files: [
      windowsFile("watari-wininet.reg", [
        "Windows Registry Editor Version 5.00",
        "",
        "[HKEY_USERS\\S-1-5-18\\Software\\Microsoft\\Windows\\CurrentVersion\\Internet Settings]",
        '"ProxyEnable"=dword:00000001',
        `"ProxyServer"="${escapeRegistry(new URL(url).host)}"`,
        `"ProxyOverride"="${escapeRegistry(`${bypass.text};<local>`)}"`,
      ]),
    ],
    omitted: bypass.omitted,
  }));
}

function escapeRegistry(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"');
}

/** The topology that this product's own programs read. */
export function renderTopology(input: RenderInput): Rendered {
  return { files: [textFile("topology.json", [JSON.stringify(topologyOf(input.plan, input.role), undefined, 2)])], omitted: [] };
}
