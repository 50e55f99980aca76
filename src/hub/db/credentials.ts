// Credentials of service principals: several each, every one with an end. Of a secret only its hash is kept.

import { X509Certificate } from "node:crypto";
import type { Kysely, Selectable } from "kysely";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import type { CredentialTable, Tables } from "./tables.ts";

export interface Credential {
  readonly credentialId: string;
  readonly principalId: string;
  readonly kind: "secret" | "certificate";
  readonly expiresAt: string;
  readonly createdAt: string;
  readonly certificatePem: string | undefined;
  /** SHA-256 of the certificate, as in x5t#S256. */
  readonly thumbprint: string | undefined;
}

export interface Credentials {
  addSecret(wanted: {
    readonly credentialId: string;
    readonly principalId: string;
    readonly secretHash: string;
    readonly expiresAt: string;
  }): Promise<void>;
  /** Fault InputInvalid when it is no certificate with an RSA key of 2048 bits or more. */
  addCertificate(wanted: {
    readonly credentialId: string;
    readonly principalId: string;
    readonly pem: string;
    readonly expiresAt: string;
  }): Promise<void>;
  remove(principalId: string, credentialId: string): Promise<boolean>;
  of(principalId: string): Promise<readonly Credential[]>;
  /** Past its end or not. */
  findSecret(principalId: string, secretHash: string): Promise<Credential | undefined>;
  /** The client's certificate with this thumbprint (base64url of SHA-1 or SHA-256), unless it is past its end. */
  findCertificate(clientId: string, thumbprint: { readonly sha1?: string; readonly sha256?: string }): Promise<Credential | undefined>;
  /** Binds an assertion to the first client and address that show it; false when it was bound to others. */
  bindAssertion(wanted: { readonly digest: string; readonly boundTo: string; readonly expiresAt: string }): Promise<boolean>;
}

const credentialsMax = 20;
const rsaBitsMin = 2048;

export function openCredentials({ db, clock }: { readonly db: Kysely<Tables>; readonly clock: Clock }): Credentials {
  const now = (): string => toTimestamp(clock.nowMs());
  const add = async (row: Omit<Selectable<CredentialTable>, "created_at">): Promise<void> => {
    const present = await db.selectFrom("credentials").select("credential_id").where("principal_id", "=", row.principal_id).execute();
    if (present.length >= credentialsMax)
      throw new Fault("LimitReached", "could not add the credential: the principal has as many as it may", {
        evidence: { credentialsMax },
      });
    await db
      .insertInto("credentials")
      .values({ ...row, created_at: now() })
      .execute();
  };
  return {
    addSecret: async ({ credentialId, principalId, secretHash, expiresAt }) => {
      const none = { certificate_pem: null, sha1: null, sha256: null };
      await add({
        credential_id: credentialId,
        principal_id: principalId,
        kind: "secret",
        secret_hash: secretHash,
        ...none,
        expires_at: expiresAt,
      });
    },
    addCertificate: async ({ credentialId, principalId, pem, expiresAt }) => {
      const certificate = parseCertificate(pem);
      const sha1 = Buffer.from(certificate.fingerprint.replaceAll(":", ""), "hex").toString("base64url");
      const sha256 = Buffer.from(certificate.fingerprint256.replaceAll(":", ""), "hex").toString("base64url");
      const facts = { certificate_pem: certificate.toString(), sha1, sha256, secret_hash: null, expires_at: expiresAt };
      await add({ credential_id: credentialId, principal_id: principalId, kind: "certificate", ...facts });
    },
    remove: async (principalId, credentialId) => {
      const query = db.deleteFrom("credentials").where("principal_id", "=", principalId).where("credential_id", "=", credentialId);
      return (await query.returning("credential_id").execute()).length > 0;
    },
    of: async (principalId) => {
      const query = db.selectFrom("credentials").selectAll().where("principal_id", "=", principalId).orderBy("created_at");
      return (await query.execute()).map(fromRow);
    },
    findSecret: async (principalId, secretHash) => {
      const query = db.selectFrom("credentials").selectAll().where("principal_id", "=", principalId).where("secret_hash", "=", secretHash);
      const row = await query.executeTakeFirst();
      return row === undefined ? undefined : fromRow(row);
    },
    findCertificate: async (clientId, { sha1, sha256 }) => {
      const query = db
        .selectFrom("credentials")
        .innerJoin("principals", "principals.principal_id", "credentials.principal_id")
        .selectAll("credentials")
        .where("principals.client_id", "=", clientId)
        .where("credentials.kind", "=", "certificate")
        .where("credentials.expires_at", ">", now());
      if (sha256 === undefined && sha1 === undefined) return undefined;
      const found = sha256 === undefined ? query.where("sha1", "=", sha1 ?? "") : query.where("sha256", "=", sha256);
      const row = await found.executeTakeFirst();
      return row === undefined ? undefined : fromRow(row);
    },
    bindAssertion: async ({ digest, boundTo, expiresAt }) => {
      await db.deleteFrom("assertions").where("expires_at", "<", now()).execute();
      await db
        .insertInto("assertions")
        .values({ digest, bound_to: boundTo, expires_at: expiresAt })
        .onConflict((conflict) => conflict.column("digest").doNothing())
        .execute();
      return (await db.selectFrom("assertions").select("bound_to").where("digest", "=", digest).executeTakeFirst())?.bound_to === boundTo;
    },
  };
}

function parseCertificate(pem: string): X509Certificate {
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(pem);
  } catch (cause) {
    throw new Fault("InputInvalid", "could not add the certificate: it is no PEM certificate", { cause });
  }
  const { asymmetricKeyType, asymmetricKeyDetails } = certificate.publicKey;
  if (asymmetricKeyType === "rsa" && (asymmetricKeyDetails?.modulusLength ?? 0) >= rsaBitsMin) return certificate;
  throw new Fault("InputInvalid", "could not add the certificate: its key is not RSA of 2048 bits or more, as Azure's clients need it");
}

function fromRow(row: Selectable<CredentialTable>): Credential {
  return {
    credentialId: row.credential_id,
    principalId: row.principal_id,
    kind: row.kind,
    expiresAt: row.expires_at,
    createdAt: row.created_at,
    certificatePem: row.certificate_pem ?? undefined,
    thumbprint: row.sha256 ?? undefined,
  };
}
