// Typed credentials of vCenters and guests: the secret is sealed at once and given only to the code that logs in.

import { z } from "zod";
import type { Random } from "../../base/random.ts";
import { Fault } from "../../contract/errors.ts";
import { readBytes, readText, type Row, type StateDatabase } from "../state/database.ts";
import type { SecretBox } from "../state/secret-box.ts";

export const credentialKinds = ["vcenter", "linux-password", "linux-key"] as const;
export const credentialPrivileges = ["root", "sudo"] as const;

const secretShape = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("password"), password: z.string().min(1).max(1024) }),
  z.object({
    kind: z.literal("key"),
    privateKeyPem: z.string().min(1).max(32_000),
    keyPassphrase: z.string().max(1024).optional(),
    sudoPassword: z.string().max(1024).optional(),
  }),
]);
export type CredentialSecret = z.infer<typeof secretShape>;

/** What may be shown. */
export interface Credential {
  readonly credentialId: string;
  readonly name: string;
  readonly kind: (typeof credentialKinds)[number];
  readonly userName: string;
  /** root: logs in as root. sudo: logs in as an ordinary account that may become root. A vCenter account ignores it. */
  readonly privilege: (typeof credentialPrivileges)[number];
}

export interface CredentialStore {
  /** Adds, or replaces the one of the same name (its id stays). */
  put(credential: Omit<Credential, "credentialId">, secret: CredentialSecret): Credential;
  list(): readonly Credential[];
  /** By id or name. Throws NotFound. */
  find(idOrName: string): Credential;
  /** The only way to the secret. Throws NotFound. */
  reveal(credentialId: string): CredentialSecret;
}

const kindShape = z.enum(credentialKinds);
const privilegeShape = z.enum(credentialPrivileges);

export function createCredentialStore(parts: {
  readonly database: StateDatabase;
  readonly box: SecretBox;
  readonly random: Random;
}): CredentialStore {
  const { database, box, random } = parts;
  const rowOf = (idOrName: string): Row => {
    const row = database.one("SELECT * FROM credential WHERE id = ? OR name = ?", idOrName, idOrName);
    if (row !== undefined) return row;
    const known = database.all("SELECT name FROM credential ORDER BY name LIMIT 20").map((each) => readText(each, "name"));
    throw new Fault("NotFound", `there is no credential ${idOrName} on this appliance`, {
      evidence: { credential: idOrName, known },
      action: "add it: watari appliance credential add --name NAME --kind KIND --user USER",
    });
  };
  return {
    put: ({ name, kind, userName, privilege }, secret) => {
      checkSecret(kind, secret);
      const present = database.one("SELECT id FROM credential WHERE name = ?", name);
      const credentialId = present === undefined ? random.uuid() : readText(present, "id");
      const sealed = box.seal(`credential ${credentialId}`, JSON.stringify(secretShape.parse(secret)));
      database.run(
        `INSERT INTO credential (id, name, kind, user_name, privilege, sealed) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, user_name = excluded.user_name, privilege = excluded.privilege, sealed = excluded.sealed`,
        credentialId,
        name,
        kind,
        userName,
        privilege,
        sealed,
      );
      return { credentialId, name, kind, userName, privilege };
    },
    list: () => database.all("SELECT * FROM credential ORDER BY name").map(toCredential),
    find: (idOrName) => toCredential(rowOf(idOrName)),
    reveal: (credentialId) => {
      const row = rowOf(credentialId);
      return secretShape.parse(JSON.parse(box.open(`credential ${readText(row, "id")}`, readBytes(row, "sealed"))));
    },
  };
}

function checkSecret(kind: Credential["kind"], secret: CredentialSecret): void {
  const wanted = kind === "linux-key" ? "key" : "password";
  if (secret.kind === wanted) return;
  throw new Fault("InputInvalid", `a credential of kind ${kind} takes a ${wanted}`, { evidence: { kind } });
}

function toCredential(row: Row): Credential {
  return {
    credentialId: readText(row, "id"),
    name: readText(row, "name"),
    kind: kindShape.parse(row["kind"]),
    userName: readText(row, "user_name"),
    privilege: privilegeShape.parse(row["privilege"]),
  };
}
