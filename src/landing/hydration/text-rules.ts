// What hydration rewrites in a guest's text files, as one table: which files of which families, and by which rule. The rules are pure.

import { rewriteFstab, rewriteKernelWords, type FindUuid, type Rewriting } from "./fstab.ts";

export interface RuleSurroundings {
  readonly findUuid: FindUuid;
  /** Kernel driver of the target's cards. */
  readonly cardDriver: string;
  readonly macs: readonly string[];
  /** Kernel and boot loader shall talk on the serial console, too. */
  readonly hasSerialConsole: boolean;
}

type Rule = (text: string, path: string, around: RuleSurroundings) => Rewriting;

export interface TextRule {
  readonly volume: "root" | "boot";
  readonly folder: string;
  /** One name, or all that end so. */
  readonly name: string | { readonly ending: string };
  /** Who has such files; for people. */
  readonly families: string;
  readonly rule: Rule;
}

const serialWords = "console=tty0 console=ttyS0,115200";
const oldDrivers = ["vmxnet3", "vmxnet", "e1000e", "e1000", "pcnet32"];

const fstab: Rule = (text, _path, { findUuid }) => rewriteFstab(text, findUuid);

/** name, device, key, options: only the device is ours to change. */
const crypttab: Rule = (text, path, { findUuid }) =>
  eachLine(text, (line, tell) => {
    const match = /^(\s*[^#\s]\S*\s+)(\/dev\/\S+)(.*)$/.exec(line);
    const [, before = "", device = "", after = ""] = match ?? [];
    const uuid = match === null || !isHardwareName(device) ? undefined : findUuid(device, "luks");
    if (uuid === undefined) {
      if (match !== null && isHardwareName(device)) tell(`${path}: ! ${device} stays: no encrypted volume was found there`);
      return line;
    }
    tell(`${path}: ${device} → UUID=${uuid}`);
    return `${before}UUID=${uuid}${after}`;
  });

/** `isNamed`: lines that name disks, too, and are not told of the console. */
function kernelLines(isTheirs: (line: string) => boolean, isNamed: (line: string) => boolean = () => false): Rule {
  return (text, path, around) => {
    const named = rewriteKernelWords(text, { path, isTheirs: (line) => isTheirs(line) || isNamed(line) }, around.findUuid);
    if (!around.hasSerialConsole) return named;
    const loud = eachLine(named.text, (line, tell) => {
      if (!isTheirs(line) || line.includes("console=ttyS")) return line;
      tell(`${path}: + ${serialWords}`);
      return line.replace(/(["']?)\s*$/, (_whole, quote: string) => ` ${serialWords}${quote}`);
    });
    return { text: loud.text, changes: [...new Set([...named.changes, ...loud.changes])] };
  };
}

const menuLines = kernelLines((line) => /^\s*linux(16|efi)?\s/.test(line));
const entryLines = kernelLines((line) => /^options\s/.test(line));
/** GRUB adds the second to the first: SUSE names the disk to resume from in it. */
const defaultLines = kernelLines(
  (line) => /^\s*GRUB_CMDLINE_LINUX=/.test(line),
  (line) => /^\s*GRUB_CMDLINE_LINUX_DEFAULT=/.test(line),
);
const wholeFile = kernelLines((line) => line.trim() !== "" && !line.startsWith("#"));

/** GRUB's environment is a block of exactly 1024 bytes, filled up with "#". */
const grubEnvironment: Rule = (text, path, around) => {
  if (text.length !== 1024) return { text, changes: [] };
  const rule = kernelLines((line) => line.startsWith("kernelopts="));
  const { text: next, changes } = rule(text.replace(/#+$/, ""), path, around);
  const unchanged: Rewriting = { text, changes: [] };
  if (changes.length === 0) return unchanged;
  if (Buffer.byteLength(next) > 1024) return { text, changes: [`${path}: ! left: its block has no room for UUIDs`] };
  return { text: next.padEnd(1024, "#"), changes };
};

/** A rule that names a card by its address goes on to; what it says of slot and driver would no longer fit. */
const udevNames: Rule = (text, path, { macs }) =>
  eachLine(text, (line, tell) => {
    if (/^\s*#/.test(line) || !/\bNAME\s*=/.test(line)) return line;
    if (!macs.some((mac) => line.toLowerCase().includes(mac.toLowerCase()))) return line;
    const next = line.replaceAll(/\s*(?:KERNELS?|DRIVERS?|ID|ENV\{ID_PATH\}|ENV\{ID_NET_DRIVER\})==?"[^"]*"\s*,/g, (whole) =>
      /DRIVERS==?"\?\*"|KERNEL=="(?:eth|en)/.test(whole) ? whole : "",
    );
    if (next !== line) tell(`${path}: a card's rule asks no longer for slot and driver`);
    return next;
  });

/** netplan's `driver: vmxnet3`, systemd's `Driver=vmxnet3`, NetworkManager's `driver=vmxnet3`. */
const cardDrivers: Rule = (text, path, { cardDriver }) =>
  eachLine(text, (line, tell) => {
    const match = new RegExp(String.raw`^(\s*(?:driver:\s*|Driver=|driver=)["']?)(${oldDrivers.join("|")})(["']?\s*)$`).exec(line);
    if (match === null) return line;
    tell(`${path}: driver ${match[2]} → ${cardDriver}`);
    return `${match[1]}${cardDriver}${match[3]}`;
  });

/** In this order; a file that is not there is no matter. */
export const textRules: readonly TextRule[] = [
  { volume: "root", folder: "/etc", name: "fstab", families: "all", rule: fstab },
  { volume: "root", folder: "/etc", name: "crypttab", families: "all", rule: crypttab },
  { volume: "boot", folder: "/grub", name: "grub.cfg", families: "Debian, Ubuntu", rule: menuLines },
  { volume: "boot", folder: "/grub2", name: "grub.cfg", families: "Red Hat, SUSE", rule: menuLines },
  { volume: "boot", folder: "/grub2", name: "grubenv", families: "Red Hat 8", rule: grubEnvironment },
  { volume: "boot", folder: "/loader/entries", name: { ending: ".conf" }, families: "Red Hat 8 and later, Fedora", rule: entryLines },
  { volume: "boot", folder: "/grub", name: "menu.lst", families: "old ones", rule: kernelLines((line) => /^\s*kernel\s/.test(line)) },
  { volume: "root", folder: "/etc/default", name: "grub", families: "all", rule: defaultLines },
  { volume: "root", folder: "/etc/kernel", name: "cmdline", families: "Red Hat 9, Fedora", rule: wholeFile },
  { volume: "root", folder: "/etc/udev/rules.d", name: "70-persistent-net.rules", families: "Debian 8, Red Hat 6, SUSE", rule: udevNames },
  { volume: "root", folder: "/etc/udev/rules.d", name: "70-persistent-ipoib.rules", families: "Red Hat 7", rule: udevNames },
  { volume: "root", folder: "/etc/netplan", name: { ending: ".yaml" }, families: "Ubuntu", rule: cardDrivers },
  { volume: "root", folder: "/etc/systemd/network", name: { ending: ".link" }, families: "systemd", rule: cardDrivers },
  { volume: "root", folder: "/etc/systemd/network", name: { ending: ".network" }, families: "systemd", rule: cardDrivers },
  {
    ...{ volume: "root", folder: "/etc/NetworkManager/system-connections", name: { ending: ".nmconnection" } },
    ...{ families: "Red Hat 9, Fedora", rule: cardDrivers },
  },
];

function isHardwareName(device: string): boolean {
  return /^\/dev\/(?:(?:sd|vd|hd|xvd)[a-z]{1,3}\d{0,3}|disk\/by-(?:path|id)\/\S+)$/.test(device);
}

function eachLine(text: string, rewrite: (line: string, tell: (change: string) => void) => string): Rewriting {
  const changes: string[] = [];
  const tell = (change: string): void => void changes.push(change);
  const lines = text.split("\n").map((line) => rewrite(line, tell));
  return { text: lines.join("\n"), changes };
}
