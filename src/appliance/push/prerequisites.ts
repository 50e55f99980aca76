// What a guest needs for the agent, looked at in one go before anything is changed on it; each finding with its repair.

import { Fault } from "../../contract/errors.ts";
import type { SshSession } from "./ssh-session.ts";
import { quote } from "./ssh-session.ts";

const freeKibMin = 400 * 1024;
const clockSkewSecondsMax = 300;

export interface Finding {
  readonly name: string;
  readonly verdict: "pass" | "fail" | "info";
  readonly found: string;
  readonly wanted: string;
  readonly repair?: string;
}

/** What the guest said of itself. */
export interface GuestFacts {
  readonly smbiosUuid: string;
  readonly osMachineId: string;
  readonly hasAtomicLibrary: boolean;
  /** Address of the appliance that an agent on the guest is registered with. */
  readonly registeredWith: string | undefined;
}

export interface Prerequisites {
  readonly findings: readonly Finding[];
  readonly facts: GuestFacts;
}

export interface BackPath {
  readonly address: string;
  readonly ports: readonly number[];
}

/** One script, so that a far guest costs one round trip. Every line is "name=value". */
function lookScript({ address, ports }: BackPath): string {
  const tries = ports.map(
    (port) =>
      `say port${port} "$(timeout 5 bash -c ${quote(`exec 3<>/dev/tcp/${address}/${port}`)} >/dev/null 2>&1 && echo open || echo closed)"`,
  );
  return `export LC_ALL=C PATH=/usr/sbin:/usr/bin:/sbin:/bin
say() { printf '%s=%s\\n' "$1" "$2"; }
free() { df -Pk "$1" 2>/dev/null | awk 'NR==2{print $4}'; }
say system "$(uname -s)"
say architecture "$(uname -m)"
say kernel "$(uname -r)"
say glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}')"
say init "$(cat /proc/1/comm)"
say systemctl "$(command -v systemctl)"
say tar "$(command -v tar)"
say gzip "$(command -v gzip)"
say bash "$(command -v bash)"
say lockdown "$(cat /sys/kernel/security/lockdown 2>/dev/null)"
say opt "$(free /opt || free /)"
say var "$(free /var || free /)"
say clock "$(date +%s)"
say uuid "$(cat /sys/class/dmi/id/product_uuid 2>/dev/null)"
say machine "$(cat /etc/machine-id 2>/dev/null)"
say swap "$(awk 'NR>1{printf "%s ", $1}' /proc/swaps)"
say filesystems "$(awk '$1 ~ "^/dev/" {printf "%s:%s ", $2, $3}' /proc/mounts)"
say atomic "$(ldconfig -p 2>/dev/null | grep -c 'libatomic.so.1 .*x86-64')"
say active "$(systemctl is-active watari-agent 2>/dev/null)"
say registered "$(sed -n 's/.*"applianceHost": *"\\([^"]*\\)".*/\\1/p' /var/lib/watari-agent/identity.json 2>/dev/null)"
${tries.join("\n")}`;
}

/** Looks; changes nothing on the guest. */
export async function checkPrerequisites(
  session: SshSession,
  options: { readonly back: BackPath; readonly nowMs: number },
): Promise<Prerequisites> {
  const text = await session.requireAsRoot("look at what the agent needs", lookScript(options.back), { timeoutMs: 60_000 });
  const values = new Map(
    text.split("\n").flatMap((line): [string, string][] => {
      const at = line.indexOf("=");
      return at < 1 ? [] : [[line.slice(0, at), line.slice(at + 1).trim()]];
    }),
  );
  return judgePrerequisites(values, options);
}

type Values = ReadonlyMap<string, string>;
type Question = { readonly back: BackPath; readonly nowMs: number };

/** Pure. */
export function judgePrerequisites(values: Values, question: Question): Prerequisites {
  const of = (name: string): string => values.get(name) ?? "";
  return {
    findings: [...judgeSystem(of), ...judgeSurroundings(of, question), ...describe(of)],
    facts: {
      smbiosUuid: of("uuid").toLowerCase(),
      osMachineId: of("machine"),
      hasAtomicLibrary: Number(of("atomic")) > 0,
      registeredWith: of("active") === "active" && of("registered") !== "" ? of("registered") : undefined,
    },
  };
}

type Look = (name: string) => string;

function judge(
  name: string,
  { wanted, isGood, found, repair }: { readonly wanted: string; readonly isGood: boolean; readonly found: string; readonly repair: string },
): Finding {
  const seen = found === "" ? "nothing" : found;
  return isGood ? { name, wanted, found: seen, verdict: "pass" } : { name, wanted, found: seen, verdict: "fail", repair };
}

function info(name: string, found: string, wanted: string): Finding {
  return { name, verdict: "info", found: found === "" ? "none" : found, wanted };
}

function judgeSystem(of: Look): Finding[] {
  const [system, architecture, kernel, glibc, init] = [of("system"), of("architecture"), of("kernel"), of("glibc"), of("init")];
  return [
    judge("system", {
      wanted: "Linux on x86-64",
      isGood: system === "Linux" && architecture === "x86_64",
      found: `${system} on ${architecture}`,
      repair: "only Linux machines on x86-64 can be replicated",
    }),
    judge("kernel", { wanted: "4.18 or newer", isGood: isAtLeast(kernel, [4, 18]), found: kernel, repair: "update the guest's kernel" }),
    judge("glibc", { wanted: "2.28 or newer", isGood: isAtLeast(glibc, [2, 28]), found: glibc, repair: "update the guest's distribution" }),
    judge("systemd", {
      wanted: "systemd as init",
      isGood: init === "systemd" && of("systemctl") !== "",
      found: init,
      repair: "only guests with systemd are supported",
    }),
    judge("archiver", {
      wanted: "tar and gzip",
      isGood: of("tar") !== "" && of("gzip") !== "",
      found: `${of("tar")} ${of("gzip")}`.trim(),
      repair: "install tar and gzip on the guest",
    }),
  ];
}

function judgeSurroundings(of: Look, { back, nowMs }: Question): Finding[] {
  const skewSeconds = Math.round(Math.abs(Number(of("clock")) - nowMs / 1000));
  const space = (folder: string, name: string): Finding =>
    judge(`space in ${folder}`, {
      wanted: "400 MiB free",
      isGood: Number(of(name)) >= freeKibMin,
      found: `${Math.floor(Number(of(name)) / 1024)} MiB free`,
      repair: `free space below ${folder}`,
    });
  const wayBack = (port: number): Finding =>
    of("bash") === ""
      ? info(`way back, port ${port}`, "not checked: the guest has no bash", "open")
      : judge(`way back, port ${port}`, {
          wanted: "open",
          isGood: of(`port${port}`) === "open",
          found: of(`port${port}`),
          repair: `allow TCP from the guest to ${back.address} port ${port}`,
        });
  return [
    space("/opt", "opt"),
    space("/var", "var"),
    judge("clock", {
      wanted: "at most 300 s off",
      isGood: skewSeconds <= clockSkewSecondsMax,
      found: `${skewSeconds} s off`,
      repair: "set the guest's clock, best by NTP: timedatectl set-ntp true",
    }),
    ...back.ports.map(wayBack),
  ];
}

function describe(of: Look): Finding[] {
  const lockdown = of("lockdown") === "" ? "none" : of("lockdown");
  return [
    info(
      "change tracking",
      `${isAtLeast(of("kernel"), [5, 5]) ? "eBPF" : "tracefs"} is expected, lockdown ${lockdown}`,
      "the agent takes the best that the machine allows, and says which and why",
    ),
    info("swap", of("swap"), "left out of replication"),
    info("filesystems", of("filesystems"), "frozen together for each point"),
  ];
}

/** Throws PrerequisitesMissing with every failed finding and its repair. */
export function requirePrerequisites(host: string, findings: readonly Finding[]): void {
  const failed = findings.filter((finding) => finding.verdict === "fail");
  if (failed.length === 0) return;
  throw new Fault("PrerequisitesMissing", `${host} lacks what the agent needs`, {
    evidence: {
      host,
      failed: failed.map(({ name, found, wanted, repair }) => `${name}: found ${found}, wanted ${wanted}; ${repair ?? ""}`),
    },
  });
}

/** vCenter and SMBIOS write the first three fields of a UUID in either byte order. */
export function isSameUuid(left: string, right: string): boolean {
  const plain = (text: string): string => text.toLowerCase().replaceAll("-", "");
  const swap = (text: string): string => {
    const flip = (from: number, to: number): string => (text.slice(from, to).match(/../g) ?? []).reverse().join("");
    return flip(0, 8) + flip(8, 12) + flip(12, 16) + text.slice(16);
  };
  return plain(left) === plain(right) || plain(left) === swap(plain(right));
}

function isAtLeast(text: string, wanted: readonly [number, number]): boolean {
  const match = /^(\d+)\.(\d+)/.exec(text);
  const major = Number(match?.[1] ?? -1);
  return major > wanted[0] || (major === wanted[0] && Number(match?.[2] ?? -1) >= wanted[1]);
}
