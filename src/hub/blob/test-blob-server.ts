// A blob front on a loopback port behind TLS, for tests: account acct1 with one key and one container.

import "reflect-metadata";
import { randomBytes, webcrypto } from "node:crypto";
import { createServer } from "node:https";
import type { LookupFunction } from "node:net";
import { BasicConstraintsExtension, SubjectAlternativeNameExtension, X509CertificateGenerator } from "@peculiar/x509";
import { assert } from "../../base/assert.ts";
import { systemClock, type Clock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { BlobFiles } from "./blob-files.ts";
import { createBlobListener } from "./blob-listener.ts";

export interface TestBlobServer extends AsyncDisposable {
  readonly accountUrl: string;
  readonly port: number;
  readonly key: Buffer;
  readonly ca: string;
  /** Every name is this server. */
  readonly lookup: LookupFunction;
}

const loopbackLookup: LookupFunction = (_host, options, callback) => {
  if (options.all === true) callback(null, [{ address: "127.0.0.1", family: 4 }]);
  else callback(null, "127.0.0.1", 4);
};

export async function startTestBlobServer(
  root: string,
  more: { readonly clock?: Clock; readonly key?: Buffer } = {},
): Promise<TestBlobServer> {
  const key = more.key ?? randomBytes(32);
  const tls = await makeCertificate("acct1.blob.test");
  const listener = createBlobListener({
    files: await BlobFiles.open(root),
    accounts: { keysOf: async (account) => (account === "acct1" ? [randomBytes(32), key] : undefined) },
    clock: more.clock ?? systemClock,
    log: silentLog,
  });
  const server = createServer({ key: tls.keyPem, cert: tls.certificatePem }, listener);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  assert(address !== null && typeof address === "object", "the server listens on a port");
  return {
    accountUrl: `https://acct1.blob.test:${address.port}`,
    port: address.port,
    key,
    ca: tls.certificatePem,
    lookup: loopbackLookup,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

async function makeCertificate(name: string): Promise<{ keyPem: string; certificatePem: string }> {
  const algorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
  const certificate = await X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: algorithm,
    extensions: [new BasicConstraintsExtension(true), new SubjectAlternativeNameExtension([{ type: "dns", value: name }])],
  });
  const pkcs8 = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  return { keyPem: `-----BEGIN PRIVATE KEY-----\n${pkcs8}\n-----END PRIVATE KEY-----\n`, certificatePem: certificate.toString("pem") };
}
