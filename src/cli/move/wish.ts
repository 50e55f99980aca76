// What is wanted of a move, from the flags alone: every value checked, nothing asked. Pure.

import { Fault } from "../../contract/errors.ts";
import { parseSource, type MoveSource } from "./source.ts";

/** As the command line gives them. */
export interface MoveFlags {
  readonly key?: string;
  readonly passwordFile?: string;
  readonly sudo?: boolean;
  readonly to: string;
  readonly out?: string;
  readonly hydrate: boolean;
  readonly network: string;
  readonly forward?: readonly string[];
  readonly probePort?: string;
  readonly probePath: string;
  readonly applianceAddress?: string;
  readonly state: string;
  readonly until?: string;
  readonly yes?: boolean;
  readonly json?: string;
}

export interface Forward {
  readonly hostPort: number;
  readonly guestPort: number;
}

export type MoveNetwork = { readonly kind: "user" } | { readonly kind: "bridge"; readonly bridge: string };

export type MoveOutcome =
  /** The machine runs here. */
  | { readonly kind: "start" }
  /** Its disks are files. */
  | {
      readonly kind: "files";
      readonly format: "raw" | "qcow2" | "vhd" | "vmdk";
      readonly folder: string | undefined;
      readonly isHydrated: boolean;
    };

export interface MoveWish {
  readonly source: MoveSource;
  readonly privilege: "root" | "sudo";
  readonly outcome: MoveOutcome;
  readonly network: MoveNetwork;
  readonly forwards: readonly Forward[];
  readonly probe: { readonly port: number; readonly path: string } | undefined;
  readonly applianceAddress: string | undefined;
  readonly until: "test" | "end";
  /** --yes: nothing is asked any more. */
  readonly isConfirmed: boolean;
}

/** Throws InputInvalid that names the flag. */
export function parseWish(sourceTextGiven: string, flags: MoveFlags): MoveWish {
  const source = parseSource(sourceTextGiven);
  const network = parseNetwork(flags.network);
  const forwards = (flags.forward ?? []).map(parseForward);
  if (forwards.length > 0 && network.kind === "bridge") {
    throw invalid("--forward", "only --network user forwards ports; on a bridge the machine has an address of its own");
  }
  const hostPorts = forwards.map(({ hostPort }) => hostPort);
  if (new Set(hostPorts).size < hostPorts.length) throw invalid("--forward", "one port of this machine is forwarded twice");
  return {
    source,
    privilege: flags.sudo === true || source.user !== "root" ? "sudo" : "root",
    outcome: parseOutcome(flags),
    network,
    forwards,
    probe:
      flags.probePort === undefined ? undefined : { port: parsePort("--probe-port", flags.probePort), path: parsePath(flags.probePath) },
    applianceAddress: flags.applianceAddress,
    until: parseUntil(flags.until),
    isConfirmed: flags.yes === true,
  };
}

function parseOutcome({ to, out, hydrate }: MoveFlags): MoveOutcome {
  if (to === "raw" || to === "qcow2" || to === "vhd" || to === "vmdk")
    return { kind: "files", format: to, folder: out, isHydrated: hydrate };
  if (to !== "start") throw invalid("--to", `${to} is none of start, raw, qcow2, vhd and vmdk`);
  if (out !== undefined) throw invalid("--out", "it names the folder of disk files; say also --to raw, qcow2, vhd or vmdk");
  return { kind: "start" };
}

function parseNetwork(text: string): MoveNetwork {
  if (text === "user") return { kind: "user" };
  const [, bridge] = /^bridge=([A-Za-z0-9_.-]{1,15})$/.exec(text) ?? [];
  if (bridge === undefined) throw invalid("--network", `${text} is neither user nor bridge=NAME`);
  return { kind: "bridge", bridge };
}

function parseForward(text: string): Forward {
  const [hostPort = "", guestPort = "", ...rest] = text.split(":");
  if (rest.length > 0) throw invalid("--forward", `${text} is not HOSTPORT:GUESTPORT`);
  return { hostPort: parsePort("--forward", hostPort), guestPort: parsePort("--forward", guestPort) };
}

function parsePort(flag: string, text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port >= 1 && port <= 65_535) return port;
  throw invalid(flag, `${text} is no port`);
}

function parsePath(text: string): string {
  if (text.startsWith("/") && text.length <= 500) return text;
  throw invalid("--probe-path", "a path begins with a slash");
}

function parseUntil(text: string | undefined): MoveWish["until"] {
  if (text === undefined) return "end";
  if (text === "test") return "test";
  throw invalid("--until", `${text} is not test`);
}

function invalid(flag: string, why: string): Fault {
  return new Fault("InputInvalid", `could not read ${flag}: ${why}`, { evidence: { flag } });
}
