// Certificates of the customer's own authority for names of the hub: shown in place of the hub's own for as long as they are good.

import { createPrivateKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { asFault, Fault } from "../../contract/errors.ts";
import type { Authority, KeyedCertificate } from "./authority.ts";

const pathShape = z.string().min(1).max(4096);

export const givenCertificatesShape = z.object({
  /** PEM of the authority that signed them: clients trust it beside the hub's own. */
  authorityFile: pathShape,
  /** Each covers one or more names; a chain stands behind its certificate in the file. The key is readable by the hub alone. */
  files: z
    .array(z.object({ certificateFile: pathShape, keyFile: pathShape }))
    .min(1)
    .max(256),
});
type GivenCertificates = z.output<typeof givenCertificatesShape>;

interface Given extends KeyedCertificate {
  readonly certificate: X509Certificate;
}

/** A replaced file is seen within this time, without a restart. */
const keptMs = 60_000;

/** Fault InputInvalid at the start for a file that cannot be read or a key that does not fit; later such files change nothing. */
export async function withGivenCertificates(
  own: Authority,
  options: { readonly given: GivenCertificates | undefined; readonly clock: Clock; readonly log: Log },
): Promise<Authority> {
  const { given, clock, log } = options;
  if (given === undefined) return own;
  const authorityPem = await readGiven(given.authorityFile);
  const trusted = toCertificate(authorityPem, given.authorityFile);
  let kept = await readAll(given, trusted);
  let readAtMs = clock.monotonicMs();
  let reading: Promise<void> | undefined;
  const readAgain = async (): Promise<void> => {
    readAtMs = clock.monotonicMs();
    try {
      kept = await readAll(given, trusted);
    } catch (error) {
      log.error("given certificates not read again; the ones before stay", { reason: asFault(error, "read them").message });
    } finally {
      reading = undefined;
    }
  };
  return {
    ...own,
    trustPem: `${own.trustPem.trimEnd()}\n${authorityPem.trimEnd()}\n`,
    serverCertificate: async (name) => {
      if (clock.monotonicMs() - readAtMs > keptMs) await (reading ??= readAgain());
      const nowMs = clock.nowMs();
      const good = kept.filter(({ certificate, notAfterMs }) => notAfterMs > nowMs && certificate.checkHost(name) !== undefined);
      const [longest] = good.toSorted((one, other) => other.notAfterMs - one.notAfterMs);
      // Better the hub's own, which its clients trust as well, than one that has ended.
      return longest ?? (await own.serverCertificate(name));
    },
  };
}

async function readAll({ files }: GivenCertificates, trusted: X509Certificate): Promise<readonly Given[]> {
  return await Promise.all(
    files.map(async ({ certificateFile, keyFile }) => {
      const [certificatePem, keyPem] = await Promise.all([readGiven(certificateFile), readGiven(keyFile)]);
      const certificate = toCertificate(certificatePem, certificateFile);
      if (!isKeyOf(certificate, keyPem)) throw unfit(keyFile, "the key is not that of the certificate");
      const chain = [certificate, ...chainBehind(certificatePem)];
      const last = chain.at(-1) ?? certificate;
      if (!last.checkIssued(trusted) || !last.verify(trusted.publicKey))
        throw unfit(certificateFile, "the authority that was named did not sign it, nor what stands behind it");
      return { certificatePem, keyPem, certificate, notAfterMs: certificate.validToDate.getTime() };
    }),
  );
}

function chainBehind(pem: string): readonly X509Certificate[] {
  return (pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).slice(1).map((each) => new X509Certificate(each));
}

function isKeyOf(certificate: X509Certificate, keyPem: string): boolean {
  try {
    return certificate.checkPrivateKey(createPrivateKey(keyPem));
  } catch {
    return false; // What is no key fits no certificate.
  }
}

function toCertificate(pem: string, path: string): X509Certificate {
  try {
    return new X509Certificate(pem);
  } catch (cause) {
    throw unfit(path, "it is no certificate", cause);
  }
}

async function readGiven(path: string): Promise<string> {
  return await readFile(path, "utf8").catch((cause: unknown) => {
    throw unfit(path, "it cannot be read", cause);
  });
}

function unfit(path: string, reason: string, cause?: unknown): Fault {
  return new Fault("InputInvalid", `could not use the certificate file ${path}: ${reason}`, {
    evidence: { path, reason },
    action: "mend the file, or take it out of certificates in the hub's configuration",
    cause,
  });
}
