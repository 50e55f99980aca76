// How the source is logged in to: by which key or password, from flags, from what is kept, or to be asked.

import { Fault } from "../../contract/errors.ts";
import type { MoveFlags } from "./wish.ts";

export type Login =
  | { readonly kind: "key"; readonly file: string; readonly passphrase?: string }
  | { readonly kind: "password"; readonly password: string };

export type LoginChoice =
  /** The appliance has it from an earlier call. */
  | { readonly kind: "kept" }
  | { readonly kind: "key"; readonly file: string }
  | { readonly kind: "passwordFile"; readonly file: string }
  | { readonly kind: "ask" };

/** Pure. Throws InputInvalid where nobody can be asked. */
export function chooseLogin(given: {
  readonly flags: Pick<MoveFlags, "key" | "passwordFile">;
  readonly isKept: boolean;
  readonly isTerminal: boolean;
  /** The user's usual key, when the file is there. */
  readonly usualKey: string | undefined;
}): LoginChoice {
  const { flags, isKept, isTerminal, usualKey } = given;
  if (flags.key !== undefined && flags.passwordFile !== undefined) {
    throw new Fault("InputInvalid", "could not choose the login: --key and --password-file were both given", {
      action: "give one of them",
    });
  }
  if (flags.key !== undefined) return { kind: "key", file: flags.key };
  if (flags.passwordFile !== undefined) return { kind: "passwordFile", file: flags.passwordFile };
  if (isKept) return { kind: "kept" };
  if (isTerminal) return { kind: "ask" };
  if (usualKey !== undefined) return { kind: "key", file: usualKey };
  throw new Fault("InputInvalid", "could not choose the login: no key and no password was given, and nobody can be asked here", {
    action: "give --key FILE or --password-file FILE",
  });
}

/** Whether a private key file needs a passphrase: PEM says so in its head, OpenSSH's format names its cipher. */
export function isKeyEncrypted(text: string): boolean {
  if (/^-----BEGIN ENCRYPTED PRIVATE KEY-----/m.test(text) || /^Proc-Type: 4,ENCRYPTED/m.test(text)) return true;
  const [, body] = /-----BEGIN OPENSSH PRIVATE KEY-----([\s\S]*?)-----END/.exec(text) ?? [];
  if (body === undefined) return false;
  const bytes = Buffer.from(body.replaceAll(/\s/g, ""), "base64");
  const magicBytes = "openssh-key-v1\0".length;
  if (bytes.length < magicBytes + 4) return false;
  const cipher = bytes.subarray(magicBytes + 4, magicBytes + 4 + bytes.readUInt32BE(magicBytes)).toString("latin1");
  return cipher !== "none";
}
