// Passwords and keys of one lab: made anew each time, kept only in files of its state folder that root alone reads.

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemRandom } from "../src/base/random.ts";
import { runCommand } from "../src/base/run-command.ts";
import type { LabPlace } from "./place.ts";

export interface LabSecrets {
  readonly vcenterPasswordFile: string;
  readonly operatorPasswordFile: string;
  readonly proxyPasswordFile: string;
  /** Private key that root of each source machine accepts. */
  readonly administratorKeyFile: string;
}

export async function createSecrets(place: LabPlace): Promise<LabSecrets> {
  const folder = join(place.stateFolder, "secrets");
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const secrets: LabSecrets = {
    vcenterPasswordFile: join(folder, "vcenter-password"),
    operatorPasswordFile: join(folder, "operator-password"),
    proxyPasswordFile: join(folder, "proxy-password"),
    administratorKeyFile: join(folder, "administrator-key.private"),
  };
  for (const file of [secrets.vcenterPasswordFile, secrets.proxyPasswordFile]) await writePassword(file);
  const operatorPassword = await writePassword(secrets.operatorPasswordFile);
  // The guest is given a hash, never the password: firmware configuration can be read by every root of the guest.
  const hash = await runCommand("openssl", ["passwd", "-6", "-stdin"], { stdin: operatorPassword });
  await writeFile(join(folder, "operator-hash"), hash.stdout.trim(), { mode: 0o600 });
  await runCommand("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-C", `${place.prefix}-lab`, "-f", secrets.administratorKeyFile]);
  const publicKey = await runCommand("ssh-keygen", ["-y", "-f", secrets.administratorKeyFile]);
  await writeFile(join(folder, "administrator-key"), publicKey.stdout, { mode: 0o600 });
  return secrets;
}

async function writePassword(file: string): Promise<string> {
  const password = Buffer.from(systemRandom.bytes(15)).toString("base64url");
  await writeFile(file, password, { mode: 0o600 });
  return password;
}
