// The machine to move, as a person writes it: user@host:port, and the folder name that stands for it.

import { createHash } from "node:crypto";
import { isIP } from "node:net";
import { Fault } from "../../contract/errors.ts";

export interface MoveSource {
  readonly user: string;
  /** Name or address, without brackets. */
  readonly host: string;
  readonly port: number;
}

const sourcePattern = /^(?:([^@\s:]{1,64})@)?(\[[0-9A-Fa-f:.]+\]|[^@\s:[\]]{1,253})(?::(\d{1,5}))?$/;
/** Folders hold sockets, whose paths are short. */
const folderCharactersMax = 22;

/** Reads "root@host", "host:2222" and "admin@[fd00::1]:22"; root and port 22 unless told. Throws InputInvalid. */
export function parseSource(text: string): MoveSource {
  const [, user = "root", bracketed = "", portText = "22"] = sourcePattern.exec(text) ?? [];
  const host = bracketed.replace(/^\[|\]$/g, "").toLowerCase();
  const port = Number(portText);
  const isAddressWhole = !bracketed.startsWith("[") || isIP(host) === 6;
  if (host !== "" && !host.startsWith("-") && isAddressWhole && port >= 1 && port <= 65_535) return { user, host, port };
  throw new Fault("InputInvalid", `could not read ${JSON.stringify(text.slice(0, 200))} as a machine`, {
    action: "write it as root@HOST, root@HOST:PORT or root@[IPV6]:PORT",
  });
}

export function sourceText({ user, host, port }: MoveSource): string {
  return `${user}@${isIP(host) === 6 ? `[${host}]` : host}${port === 22 ? "" : `:${port}`}`;
}

/** The same machine always gets the same folder, whoever logs in. */
export function folderNameOf({ host, port }: MoveSource): string {
  const plain = `${host.replaceAll(/[^a-z0-9.-]/g, "_")}-${port}`;
  if (plain.length <= folderCharactersMax && isIP(host) !== 6) return plain;
  return `${plain.slice(0, folderCharactersMax - 9)}-${createHash("sha256").update(`${host} ${port}`).digest("hex").slice(0, 8)}`;
}
