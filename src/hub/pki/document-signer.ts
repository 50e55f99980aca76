// Documents that the hub signs and anybody checks without it: a JWS (RFC 7515) whose header carries the certificates up to the hub's authority.

import { X509Certificate } from "node:crypto";
import { CompactSign, compactVerify, decodeProtectedHeader, importPKCS8, importX509 } from "jose";
import { z } from "zod";
import { toTimestamp, type Clock } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { documentSigning, type Authority, type KeyedCertificate } from "./authority.ts";

export interface DocumentSigner {
  /** `type` tells documents apart, so that one is never taken for another. Its instant is in the header. */
  sign(type: string, document: object): Promise<string>;
}

/** Far above the largest report: 64 disks with their roots. */
const documentCharactersMax = 1 << 20;
const algorithm = "ES256";
const renewBeforeMs = 30 * 24 * 3600_000;

const headerShape = z.strictObject({
  alg: z.literal(algorithm),
  typ: z.string().max(100),
  /** The signer's certificate, then the authority's. */
  x5c: z.array(z.base64().max(8000)).length(2),
  signedAt: z.iso.datetime(),
});

/** The key lives in this process alone and is never stored: who checks needs only the authority's certificate. */
export function createDocumentSigner({
  authority,
  clock,
}: {
  readonly authority: Pick<Authority, "signingCertificate" | "caPem">;
  readonly clock: Clock;
}): DocumentSigner {
  let kept: Promise<KeyedCertificate> | undefined;
  const certificate = async (): Promise<KeyedCertificate> => {
    const present = await kept;
    if (present !== undefined && present.notAfterMs - clock.nowMs() > renewBeforeMs) return present;
    kept = authority.signingCertificate();
    return await kept;
  };
  return {
    sign: async (type, document) => {
      const { certificatePem, keyPem } = await certificate();
      const signedAt = toTimestamp(clock.nowMs());
      const x5c = [certificatePem, authority.caPem].map((pem) => new X509Certificate(pem).raw.toString("base64"));
      return await new CompactSign(Buffer.from(JSON.stringify(document), "utf8"))
        .setProtectedHeader({ alg: algorithm, typ: type, x5c, signedAt })
        .sign(await importPKCS8(keyPem, algorithm));
    },
  };
}

export interface CheckedDocument {
  readonly document: unknown;
  readonly signedAt: string;
}

/** Fault SignatureInvalid unless the text is, to its last character, what a hub of this authority signed as this type. */
export async function checkDocument(text: string, wanted: { readonly type: string; readonly caPem: string }): Promise<CheckedDocument> {
  if (text.length > documentCharactersMax) throw untrusted("it is larger than any");
  const { x5c, signedAt, typ } = readHeader(text);
  if (typ !== wanted.type) throw untrusted(`it is of the type ${typ}`);
  const signer = readSigner(x5c[0] ?? "");
  const authority = readAuthority(wanted.caPem);
  if (!signer.checkIssued(authority) || !signer.verify(authority.publicKey)) throw untrusted("its certificate is not of this authority");
  if (signer.ca || !(signer.keyUsage ?? []).includes(documentSigning)) throw untrusted("its certificate is not one for documents");
  for (const each of [signer, authority])
    if (signedAt < toTimestamp(each.validFromDate.getTime()) || signedAt > toTimestamp(each.validToDate.getTime()))
      throw untrusted("its certificate was not valid when it was signed");
  const { payload } = await verified(text, signer);
  // The last character of a signature has bits that no decoder reads.
  const signature = text.slice(text.lastIndexOf(".") + 1);
  if (Buffer.from(signature, "base64url").toString("base64url") !== signature) throw untrusted("its signature is not written as one is");
  return { document: JSON.parse(Buffer.from(payload).toString("utf8")), signedAt };
}

function readHeader(text: string): z.infer<typeof headerShape> {
  try {
    return headerShape.parse(decodeProtectedHeader(text));
  } catch (error) {
    throw untrusted("it has no header of a signed document", error);
  }
}

function readSigner(text: string): X509Certificate {
  try {
    return new X509Certificate(Buffer.from(text, "base64"));
  } catch (error) {
    throw untrusted("its certificate cannot be read", error);
  }
}

function readAuthority(caPem: string): X509Certificate {
  try {
    return new X509Certificate(caPem);
  } catch (error) {
    throw new Fault("InputInvalid", "could not read the certificate of the hub's authority", { cause: error });
  }
}

async function verified(text: string, signer: X509Certificate): Promise<{ readonly payload: Uint8Array }> {
  try {
    return await compactVerify(text, await importX509(signer.toString(), algorithm), { algorithms: [algorithm] });
  } catch (error) {
    throw untrusted("its signature does not fit", error);
  }
}

function untrusted(reason: string, cause?: unknown): Fault {
  return new Fault("SignatureInvalid", `could not trust the document: ${reason}`, { ...(cause === undefined ? {} : { cause }) });
}
