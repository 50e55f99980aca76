// The only way from alerts to the network: a host and port that the operator allows, at an address that is checked and then dialled.

import { lookup } from "node:dns/promises";
import { isIP, type Socket } from "node:net";
import { getCACertificates, type TLSSocket } from "node:tls";
import { Fault } from "../../contract/errors.ts";
import { parseAddressRanges, type AddressRanges } from "../../connectivity/address-range.ts";
import { dialAny, openTunnel, proxyUnreachable, startTls, type HostPort } from "../../connectivity/dial.ts";
import { errorCode } from "../../connectivity/resolve.ts";
import type { AlertsConfig, AllowedDestination } from "./alerts-config.ts";

export interface Way {
  readonly target: HostPort;
  readonly isTls: boolean;
  /** An HTTP proxy that is asked for a tunnel; it has to be allowed like any other destination. */
  readonly proxyUrl?: string | undefined;
  readonly signal: AbortSignal;
}

export interface Destinations {
  /** Refuses what the operator does not allow, without asking anybody. */
  check(way: Omit<Way, "signal">): void;
  /** A plain connection, through the proxy's tunnel where there is one. Faults name the hop. */
  open(way: Way): Promise<Socket>;
}

/** Never, whatever is allowed: link-local and metadata services, this network, groups, and addresses that hold another one inside. */
const refusedRanges = parseAddressRanges([
  ...["0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "224.0.0.0/4", "240.0.0.0/4", "100.100.100.200/32", "168.63.129.16/32"],
  ...["::/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128", "64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32"],
]);
/** This host's own services are reached only where `addresses` says so. */
const ownRanges = parseAddressRanges(["127.0.0.0/8", "::1/128"]);
const addressesMax = 16;

export function createDestinations({ allow }: AlertsConfig): Destinations {
  const rules = allow.map((rule) => ({ rule, ranges: rule.addresses === undefined ? undefined : parseAddressRanges(rule.addresses) }));
  const find = (target: HostPort, isTls: boolean): Rule => {
    const found = rules.find(({ rule }) => rule.port === target.port && isNamed(rule, target.host) && (isTls || rule.plain));
    if (found === undefined) throw refused(target, isTls ? [] : ["a message without TLS goes only where hub.yaml says plain: true"]);
    if (isIP(target.host) !== 0) requireAddresses(found, target, [target.host]);
    return found;
  };
  const reach = async (target: HostPort, isTls: boolean, signal: AbortSignal): Promise<Socket> => {
    const rule = find(target, isTls);
    const addresses = await resolve(target.host, signal);
    requireAddresses(rule, target, addresses);
    return await dialAny(target, addresses, signal);
  };
  return {
    check: ({ target, isTls, proxyUrl }) => {
      find(target, isTls);
      if (proxyUrl !== undefined) find(...proxyOf(proxyUrl));
    },
    open: async ({ target, isTls, proxyUrl, signal }) => {
      if (proxyUrl === undefined) return await reach(target, isTls, signal);
      find(target, isTls);
      const [proxy, isProxyTls] = proxyOf(proxyUrl);
      const plain = await reach(proxy, isProxyTls, signal).catch((error: unknown) => {
        if (error instanceof Fault && error.code === "AlertDestinationRefused") throw error;
        throw proxyUnreachable(proxyUrl, signal, error);
      });
      const socket = isProxyTls ? await startTls(plain, { ...proxy, ca: getCACertificates("default"), signal }) : plain;
      return await openTunnel({ socket, proxyUrl, target, signal });
    },
  };
}

interface Rule {
  readonly rule: AllowedDestination;
  readonly ranges: AddressRanges | undefined;
}

/** TLS to the name that was asked for: an authority that is given is trusted in place of the system's. */
export async function secure(
  socket: Socket,
  wanted: { readonly target: HostPort; readonly caPem: string | undefined; readonly signal: AbortSignal },
): Promise<TLSSocket> {
  const { target, caPem, signal } = wanted;
  return await startTls(socket, { ...target, ca: caPem === undefined ? getCACertificates("default") : [caPem], signal });
}

/** Host and port of a URL as they are dialled. */
export function targetOf(url: URL): HostPort {
  const host = url.hostname.replace(/^\[|\]$/g, "").replace(/\.$/, "");
  return { host, port: url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port) };
}

function proxyOf(proxyUrl: string): readonly [HostPort, boolean] {
  const url = new URL(proxyUrl);
  return [targetOf(url), url.protocol === "https:"];
}

function isNamed({ host }: AllowedDestination, name: string): boolean {
  return host.startsWith(".") ? name.endsWith(host) : name === host;
}

/** A name with one bad answer is refused as a whole: who can give one can give another at the next question. */
function requireAddresses({ ranges }: Rule, target: HostPort, addresses: readonly string[]): void {
  const isBad = (address: string): boolean =>
    refusedRanges.contains(address) || (ranges === undefined ? ownRanges.contains(address) : !ranges.contains(address));
  const bad = addresses.filter(isBad);
  if (bad.length > 0) throw refused(target, [`${target.host} leads to ${bad.join(", ")}, where alerts may not go`], bad);
}

async function resolve(host: string, signal: AbortSignal): Promise<readonly string[]> {
  if (isIP(host) !== 0) return [host];
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => aborted.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    // A resolver cannot be stopped; the abort ends the waiting.
    const answers = await Promise.race([lookup(host, { all: true, order: "ipv4first" }), aborted.promise]);
    return answers.slice(0, addressesMax).map(({ address }) => address);
  } catch (error) {
    throw new Fault("NameUnresolved", `could not resolve ${host}`, {
      evidence: { name: host, server: "system resolver", code: errorCode(error) },
      cause: error,
    });
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function refused({ host, port }: HostPort, causes: readonly string[], addresses: readonly string[] = []): Fault {
  return new Fault("AlertDestinationRefused", `refused to send alerts to ${host} port ${port}`, {
    evidence: { host, port, ...(addresses.length === 0 ? {} : { addresses }) },
    ...(causes.length === 0 ? {} : { causes }),
  });
}
