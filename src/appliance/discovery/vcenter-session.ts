// A logged-in session with one vCenter: pinned TLS, login, calls that log in again when the session has expired, logout.

import { createHash } from "node:crypto";
import type { Socket } from "node:net";
import { connect as tlsConnect, getCACertificates, type TLSSocket } from "node:tls";
import { Agent } from "undici";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import type { Connector } from "../../connectivity/connector.ts";
import {
  createSoapClient,
  decodeAnswer,
  escapeXml,
  referenceShape,
  SoapFault,
  textShape,
  type ManagedObject,
  type SoapCall,
  type SoapClient,
} from "./soap.ts";

/** By which the vCenter's certificate is trusted: the system's authorities, one of its own, or the certificate itself. */
export type VcenterTrust =
  | { readonly kind: "system" }
  | { readonly kind: "authority"; readonly caPem: string }
  /** SHA-256 of the certificate, hex with or without colons. */
  | { readonly kind: "thumbprint"; readonly sha256: string };

export interface VcenterAddress {
  readonly host: string;
  readonly port: number;
  readonly trust: VcenterTrust;
  /** Trusted beside the system's authorities, where those are asked. */
  readonly authoritiesPem?: string;
}

export interface VcenterLogin {
  readonly userName: string;
  readonly password: string;
}

const serviceShape = z.object({
  returnval: z.object({
    propertyCollector: referenceShape,
    viewManager: referenceShape,
    sessionManager: referenceShape,
    rootFolder: referenceShape,
    about: z.object({ fullName: textShape, instanceUuid: textShape.optional(), apiVersion: textShape }),
  }),
});
export type ServiceContent = z.infer<typeof serviceShape>["returnval"];

export interface VcenterSession extends AsyncDisposable {
  readonly service: ServiceContent;
  /** Calls; when the session has expired it logs in again and calls once more. */
  call(call: SoapCall, signal?: AbortSignal): Promise<unknown>;
}

/** Logs in. Throws VcenterUnreachable, VcenterUntrusted or VcenterLoginRefused. */
export async function openVcenterSession(
  options: { readonly address: VcenterAddress; readonly login: VcenterLogin; readonly connector: Pick<Connector, "connect"> },
  signal?: AbortSignal,
): Promise<VcenterSession> {
  const { address, login } = options;
  await using cleanup = new AsyncDisposableStack();
  const dispatcher = new Agent({
    connections: 4,
    connect: (_target, callback) => {
      openTrusted(options, signal).then(
        (socket) => callback(null, socket),
        (error: unknown) => callback(error instanceof Error ? error : new Error(String(error)), null),
      );
    },
  });
  cleanup.defer(async () => await dispatcher.destroy());
  const soap = createSoapClient({ url: `https://${address.host}:${address.port}/sdk`, dispatcher });
  const root: ManagedObject = { type: "ServiceInstance", id: "ServiceInstance" };
  const answer = await guard(
    address,
    async () => await soap.call({ method: "RetrieveServiceContent", on: root, body: "" }, undefined, signal),
  );
  const service = decodeAnswer(serviceShape, answer.body, "service content").returnval;
  let cookie = await logIn({ soap, service, login, address, cookie: answer.cookie }, signal);
  cleanup.defer(async () => {
    // The vCenter ends an idle session by itself; a logout that fails harms nothing.
    await soap.call({ method: "Logout", on: service.sessionManager, body: "" }, cookie, AbortSignal.timeout(5_000)).catch(() => undefined);
  });
  const call = async (what: SoapCall, abort?: AbortSignal): Promise<unknown> => {
    try {
      return (await soap.call(what, cookie, abort)).body;
    } catch (error) {
      if (!(error instanceof SoapFault) || error.faultName !== "NotAuthenticated") throw error;
      cookie = await logIn({ soap, service, login, address, cookie: undefined }, abort);
      return (await soap.call(what, cookie, abort)).body;
    }
  };
  const owned = cleanup.move();
  return {
    service,
    call: async (what, abort) => await guard(address, async () => await call(what, abort ?? signal)),
    [Symbol.asyncDispose]: async () => await owned.disposeAsync(),
  };
}

interface LoginParts {
  readonly soap: SoapClient;
  readonly service: ServiceContent;
  readonly login: VcenterLogin;
  readonly address: VcenterAddress;
  readonly cookie: string | undefined;
}

async function logIn({ soap, service, login, address, cookie }: LoginParts, signal?: AbortSignal): Promise<string | undefined> {
  const body = `<userName>${escapeXml(login.userName)}</userName><password>${escapeXml(login.password)}</password>`;
  try {
    return (await soap.call({ method: "Login", on: service.sessionManager, body }, cookie, signal)).cookie;
  } catch (error) {
    if (!(error instanceof SoapFault) || error.faultName !== "InvalidLogin") throw error;
    throw new Fault("VcenterLoginRefused", `the vCenter ${address.host} refused the login of ${login.userName}`, {
      evidence: { host: address.host, port: address.port, userName: login.userName, answer: error.message },
      cause: error,
    });
  }
}

/** Gives the vCenter's refusals and the network's failures their Fault. */
async function guard<T>(address: VcenterAddress, task: () => Promise<T>): Promise<T> {
  try {
    return await task();
  } catch (error) {
    if (error instanceof Fault) throw error;
    const evidence = { host: address.host, port: address.port };
    if (error instanceof SoapFault) {
      throw new Fault("VcenterRefused", `the vCenter ${address.host} refused a call: ${error.message}`, {
        evidence: { ...evidence, vcenterFault: error.faultName },
        cause: error,
      });
    }
    if (error instanceof Error && error.cause instanceof Fault) throw error.cause;
    throw new Fault("VcenterUnreachable", `could not reach the vCenter ${address.host} port ${address.port}`, { evidence, cause: error });
  }
}

async function openTrusted(
  { address, connector }: { readonly address: VcenterAddress; readonly connector: Pick<Connector, "connect"> },
  signal?: AbortSignal,
): Promise<TLSSocket> {
  const plain = await connector.connect({ host: address.host, port: address.port }, signal).catch((error: unknown) => {
    const evidence = error instanceof Fault ? error.evidence : {};
    throw new Fault("VcenterUnreachable", `could not reach the vCenter ${address.host} port ${address.port}`, {
      evidence: { ...evidence, host: address.host, port: address.port },
      cause: error,
    });
  });
  return await startTls(plain, address);
}

async function startTls(plain: Socket, { host, port, trust, authoritiesPem }: VcenterAddress): Promise<TLSSocket> {
  const secure = tlsConnect({
    socket: plain,
    host,
    // A pinned certificate is judged below, before a byte of ours is sent.
    rejectUnauthorized: false,
    ...(trust.kind === "authority" ? { ca: trust.caPem } : {}),
    ...(trust.kind === "system" && authoritiesPem !== undefined ? { ca: [...getCACertificates("default"), authoritiesPem] } : {}),
    ...(/[a-z]/i.test(host) && !host.includes(":") ? { servername: host } : {}),
    ALPNProtocols: ["http/1.1"],
    timeout: 10_000,
  });
  return await new Promise((resolve, reject) => {
    const fail = (because: string, cause?: unknown): void => {
      const certificate = secure.getPeerX509Certificate();
      secure.destroy();
      reject(
        new Fault("VcenterUntrusted", `refused to trust the vCenter ${host}: ${because}`, {
          evidence: {
            host,
            port,
            because,
            ...(certificate === undefined ? {} : { thumbprint: thumbprintOf(certificate.raw), subject: certificate.subject }),
          },
          cause,
        }),
      );
    };
    secure.once("error", (error) => fail(error.message, error));
    secure.once("timeout", () => fail("the handshake took too long"));
    secure.once("secureConnect", () => {
      secure.setTimeout(0);
      const certificate = secure.getPeerX509Certificate();
      if (trust.kind === "thumbprint") {
        if (certificate === undefined || thumbprintOf(certificate.raw) !== normaliseThumbprint(trust.sha256))
          return fail("its certificate has another thumbprint");
      } else if (!secure.authorized) return fail(String(secure.authorizationError));
      return resolve(secure);
    });
  });
}

function thumbprintOf(der: Uint8Array): string {
  return createHash("sha256").update(der).digest("hex");
}

export function normaliseThumbprint(text: string): string {
  return text.replaceAll(/[:\s]/g, "").toLowerCase();
}
