// How a machine's clone is made ready, as options: addresses of its cards, a serial console, keys of encrypted disks (from files or stdin, never arguments).

import { open } from "node:fs/promises";
import type { Command } from "commander";
import { Fault } from "../contract/errors.ts";

interface NicAddressing {
  readonly nicId: string;
  readonly addressing: Readonly<Record<string, unknown>>;
}

interface KeySource {
  readonly path: string;
  /** Of a passphrase, the line's end is none of it. */
  readonly kind: "keyFile" | "passphrase";
}

export interface LaunchSettingsOptions {
  readonly nicAddress: readonly NicAddressing[];
  readonly serialConsole?: boolean;
  readonly unlockKeyFile: readonly KeySource[];
  readonly unlockPassphraseFile: readonly KeySource[];
}

const keyBytesMax = 8_192;

export function withLaunchSettings(command: Command): Command {
  const collectKey =
    (kind: KeySource["kind"]) =>
    (path: string, before: readonly KeySource[]): readonly KeySource[] => [...before, { path, kind }];
  return command
    .option(
      "--nic-address <card=how>",
      "address of a card on the other side; may be repeated: eth0=keep, eth0=dhcp, eth0=10.0.0.5/24[,gateway=10.0.0.1][,dns=10.0.0.2]",
      collectAddress,
      [],
    )
    .option("--serial-console", "its kernel talks on the serial console")
    .option("--no-serial-console", "its kernel lines stay as they are")
    .option(
      "--unlock-key-file <path>",
      "key file of an encrypted disk, byte for byte; - is stdin; may be repeated",
      collectKey("keyFile"),
      [],
    )
    .option(
      "--unlock-passphrase-file <path>",
      "file whose one line is a passphrase of an encrypted disk; - is stdin; may be repeated",
      collectKey("passphrase"),
      [],
    );
}

/** The members of a call; reads the files. */
export async function launchSettingsOf(options: LaunchSettingsOptions): Promise<object> {
  const { nicAddress, serialConsole } = options;
  const sources = [...options.unlockKeyFile, ...options.unlockPassphraseFile];
  if (sources.filter(({ path }) => path === "-").length > 1)
    throw new Fault("InputInvalid", "could not read the keys: stdin holds one of them only", { action: "put the others into files" });
  const keys: string[] = [];
  for (const source of sources) keys.push((await readKey(source)).toString("base64"));
  return {
    ...(nicAddress.length === 0 ? {} : { nicAddressing: nicAddress }),
    ...(serialConsole === undefined ? {} : { hasSerialConsole: serialConsole }),
    ...(keys.length === 0 ? {} : { unlockKeys: keys }),
  };
}

export function collectAddress(text: string, before: readonly NicAddressing[]): readonly NicAddressing[] {
  const [, nicId = "", how = ""] = /^([^=]+)=(.+)$/s.exec(text) ?? [];
  const [address = "", ...more] = how.split(",");
  if (nicId !== "" && (how === "keep" || how === "dhcp")) return [...before, { nicId, addressing: { kind: how } }];
  const words = more.map((word) => /^(gateway|dns)=([0-9.]+)$/.exec(word));
  const valuesOf = (name: string): readonly string[] => words.flatMap((word) => (word?.[1] === name ? [word[2] ?? ""] : []));
  const [gateway, ...others] = valuesOf("gateway");
  if (nicId === "" || !/^[0-9.]+\/\d+$/.test(address) || words.includes(null) || others.length > 0)
    throw new Fault("InputInvalid", `could not read the address ${text}`, {
      action: "write CARD=keep, CARD=dhcp or CARD=10.0.0.5/24[,gateway=10.0.0.1][,dns=10.0.0.2]",
    });
  const nameServers = valuesOf("dns");
  const addressing = {
    kind: "fixed",
    address,
    ...(gateway === undefined ? {} : { gateway }),
    ...(nameServers.length === 0 ? {} : { nameServers }),
  };
  return [...before, { nicId, addressing }];
}

async function readKey({ path, kind }: KeySource): Promise<Buffer> {
  const bytes = path === "-" ? await readStdin() : await readFirst(path);
  const key = kind === "keyFile" ? bytes : Buffer.from(bytes.toString("latin1").replace(/\r?\n$/, ""), "latin1");
  if (key.length > 0 && key.length <= keyBytesMax && !(kind === "passphrase" && key.includes(10))) return key;
  throw new Fault("InputInvalid", `could not take the key in ${path === "-" ? "stdin" : path}`, {
    evidence: { bytes: key.length, keyBytesMax },
    action:
      kind === "keyFile" ? "name a file of 1 to 8192 bytes" : "name a file of one line; a key file of other bytes is --unlock-key-file",
  });
}

/** One byte more than may be, so that too much is seen. */
async function readFirst(path: string): Promise<Buffer> {
  await using file = await open(path).catch((cause: unknown) => {
    throw new Fault("InputInvalid", `could not read the key file ${path}`, { cause });
  });
  const { buffer, bytesRead } = await file.read(Buffer.alloc(keyBytesMax + 1), 0, keyBytesMax + 1, null);
  return buffer.subarray(0, bytesRead);
}

async function readStdin(): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of process.stdin) {
    pieces.push(Buffer.from(piece));
    size += pieces.at(-1)?.length ?? 0;
    if (size > keyBytesMax) break;
  }
  return Buffer.concat(pieces);
}
