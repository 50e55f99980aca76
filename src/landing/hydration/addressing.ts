// Gives a card of the landed machine another address than it had: by DHCP, or a fixed one, in the words of whatever configures its network.

import type { NicAddressing } from "../target.ts";
import { isNamed, nothing, replaceFile, type Edit } from "./edit.ts";
import type { FileChange, VolumeFiles } from "./volume-files.ts";

export interface AddressedCard {
  readonly guestName: string;
  readonly addressing: Exclude<NicAddressing, { readonly kind: "keep" }>;
}

/** Each system that the guest has gets its file; one that does not run does not read it. */
export async function planAddressing(rootFiles: VolumeFiles, cards: readonly AddressedCard[]): Promise<Edit> {
  if (cards.length === 0) return nothing;
  const rootChanges: FileChange[] = [];
  const changes: string[] = [];
  const systems = await findSystems(rootFiles);
  for (const card of cards) {
    for (const { folder, name, mode, text } of filesFor(card, systems)) {
      const present = (await rootFiles.list(folder)) ?? [];
      const old = (await rootFiles.read([`${folder}/${name}`])).get(`${folder}/${name}`)?.toString("utf8");
      if (old === text) continue;
      if (isNamed(present, name)) rootChanges.push({ kind: "remove", path: `${folder}/${name}` });
      rootChanges.push({ kind: "write", path: `${folder}/${name}`, content: Buffer.from(text), mode });
      changes.push(`${folder}/${name}: the card ${card.guestName} gets ${wordsFor(card)}`);
    }
  }
  const interfaces = (await rootFiles.read(["/etc/network/interfaces"])).get("/etc/network/interfaces")?.toString("latin1");
  if (interfaces !== undefined) {
    const text = cards.reduce(rewriteInterfaces, interfaces);
    if (text !== interfaces) {
      rootChanges.push(...(await replaceFile(rootFiles, { folder: "/etc/network", name: "interfaces", text })));
      changes.push(...cards.map((card) => `/etc/network/interfaces: the card ${card.guestName} gets ${wordsFor(card)}`));
    }
  }
  if (systems.has("wicked")) changes.push(...(await remarkOnSuse(rootFiles, cards)));
  if (changes.length > 0 || rootChanges.length > 0) return { rootChanges, changes };
  return systems.size === 0 && interfaces === undefined ? { changes: ["! no known network configuration: the addresses stay"] } : nothing;
}

type System = "networkd" | "networkManager" | "ifcfg" | "wicked";

async function findSystems(rootFiles: VolumeFiles): Promise<ReadonlySet<System>> {
  const has = async (folder: string, ending: string) => ((await rootFiles.list(folder)) ?? []).some(({ name }) => name.endsWith(ending));
  const found = new Set<System>();
  // netplan's files come to networkd as /run/systemd/network/10-netplan-*: a file in /etc that sorts before them counts.
  if ((await has("/etc/systemd/network", ".network")) || (await has("/etc/netplan", ".yaml"))) found.add("networkd");
  if ((await rootFiles.list("/etc/NetworkManager/system-connections")) !== undefined) found.add("networkManager");
  const hasCards = async (folder: string) =>
    ((await rootFiles.list(folder)) ?? []).some(({ name }) => name.startsWith("ifcfg-") && !/-(?:lo|template)$/.test(name));
  if (await hasCards("/etc/sysconfig/network-scripts")) found.add("ifcfg");
  if (await hasCards("/etc/sysconfig/network")) found.add("wicked");
  return found;
}

interface WantedFile {
  readonly folder: string;
  readonly name: string;
  readonly mode: number;
  readonly text: string;
}

function filesFor({ guestName, addressing }: AddressedCard, systems: ReadonlySet<System>): readonly WantedFile[] {
  const lines = (...parts: readonly (string | undefined)[]): string => `${parts.filter((part) => part !== undefined).join("\n")}\n`;
  const fixed = addressing.kind === "fixed" ? addressing : undefined;
  const name = `05-watari-${guestName}.network`;
  const networkd = lines(
    `[Match]\nName=${guestName}\n\n[Network]`,
    ...(fixed === undefined ? ["DHCP=yes"] : [`Address=${fixed.address}`, fixed.gateway && `Gateway=${fixed.gateway}`]),
    ...(fixed?.nameServers ?? []).map((server) => `DNS=${server}`),
  );
  const managed = lines(
    `[connection]\nid=watari-${guestName}\ntype=ethernet\ninterface-name=${guestName}\nautoconnect-priority=999\n\n[ipv4]`,
    ...(fixed === undefined
      ? ["method=auto"]
      : ["method=manual", `address1=${fixed.address}${fixed.gateway === undefined ? "" : `,${fixed.gateway}`}`]),
    fixed?.nameServers === undefined ? undefined : `dns=${fixed.nameServers.join(";")};`,
  );
  const [address, prefix] = fixed?.address.split("/") ?? [];
  const ifcfg = lines(
    `DEVICE=${guestName}\nONBOOT=yes`,
    ...(fixed === undefined ? ["BOOTPROTO=dhcp"] : ["BOOTPROTO=none", `IPADDR=${address}`, `PREFIX=${prefix}`]),
    fixed?.gateway && `GATEWAY=${fixed.gateway}`,
    ...(fixed?.nameServers ?? []).map((server, index) => `DNS${index + 1}=${server}`),
  );
  return [
    ...(systems.has("networkd") ? [{ folder: "/etc/systemd/network", name, mode: 0o644, text: networkd }] : []),
    ...(systems.has("networkManager")
      ? [{ folder: "/etc/NetworkManager/system-connections", name: `watari-${guestName}.nmconnection`, mode: 0o600, text: managed }]
      : []),
    ...(systems.has("wicked") ? wickedFiles(guestName, fixed) : []),
    ...(systems.has("ifcfg") ? [{ folder: "/etc/sysconfig/network-scripts", name: `ifcfg-${guestName}`, mode: 0o644, text: ifcfg }] : []),
  ];
}

/** SUSE (wicked, ifcfg(5) and routes(5)): the gateway stands in a file of its own, name servers in one for all cards, which stays. */
function wickedFiles(guestName: string, fixed: Extract<NicAddressing, { readonly kind: "fixed" }> | undefined): readonly WantedFile[] {
  const folder = "/etc/sysconfig/network";
  const words = fixed === undefined ? "BOOTPROTO='dhcp'" : `BOOTPROTO='static'\nIPADDR='${fixed.address}'`;
  const card = { folder, name: `ifcfg-${guestName}`, mode: 0o644, text: `STARTMODE='auto'\n${words}\n` };
  const route = fixed?.gateway === undefined ? "" : `default ${fixed.gateway} - ${guestName}\n`;
  return [card, { folder, name: `ifroute-${guestName}`, mode: 0o644, text: route }];
}

/** What stands for all cards together is not one card's to change. */
async function remarkOnSuse(rootFiles: VolumeFiles, cards: readonly AddressedCard[]): Promise<readonly string[]> {
  const path = "/etc/sysconfig/network/routes";
  const routes = (await rootFiles.read([path])).get(path)?.toString("latin1") ?? "";
  const hasServers = cards.some(({ addressing }) => addressing.kind === "fixed" && (addressing.nameServers ?? []).length > 0);
  return [
    ...(/^\s*default\s/m.test(routes) ? [`! ${path}: its default route stays`] : []),
    ...(hasServers ? ["! /etc/sysconfig/network/config: its name servers stay"] : []),
  ];
}

/** The card's IPv4 stanza of ifupdown is written anew; what runs before and after it stays, and so does every other line. */
export function rewriteInterfaces(text: string, { guestName, addressing }: AddressedCard): string {
  const fixed = addressing.kind === "fixed" ? addressing : undefined;
  const begins = /^\s*(iface|auto|allow-\S+|mapping|source|source-directory|no-auto-down|no-scripts)\b/;
  const replaced = /^\s*(address|netmask|broadcast|network|gateway|dns-nameservers|pointopoint)\b/;
  const fresh = [
    `iface ${guestName} inet ${fixed === undefined ? "dhcp" : "static"}`,
    ...(fixed === undefined ? [] : [`    address ${fixed.address}`]),
    ...(fixed?.gateway === undefined ? [] : [`    gateway ${fixed.gateway}`]),
    ...(fixed?.nameServers === undefined ? [] : [`    dns-nameservers ${fixed.nameServers.join(" ")}`]),
  ];
  const out: string[] = [];
  let isInside = false;
  for (const line of text.split("\n")) {
    if (begins.test(line)) {
      const [, word, name, family] = /^\s*(\S+)\s+(\S+)(?:\s+(\S+))?/.exec(line) ?? [];
      isInside = word === "iface" && name === guestName && family === "inet";
      out.push(...(isInside ? fresh : [line]));
    } else if (!isInside || !replaced.test(line)) out.push(line);
  }
  return out.join("\n");
}

function wordsFor({ addressing }: AddressedCard): string {
  return addressing.kind === "dhcp" ? "its address by DHCP" : `the address ${addressing.address}`;
}
