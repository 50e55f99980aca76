// The hub's configuration: one YAML file, parsed once, with a default for everything that has a right one.

import { readFile } from "node:fs/promises";
import { BlockList, isIPv4 } from "node:net";
import { resolve } from "node:path";
import { parse } from "yaml";
import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import { alertsConfigShape } from "./alerts/alerts-config.ts";
import { givenCertificatesShape } from "./pki/given-certificates.ts";
import { parseInput } from "./api/arm-errors.ts";
import { signInConfigShape } from "./auth/sign-in-config.ts";
import { tracesConfigShape } from "./telemetry/traces-config.ts";

const addressShape = z.ipv4();
const nameShape = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$/, "letters, digits, dot, dash and underscore");
const domainShape = z
  .string()
  .max(150)
  .regex(/^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, "a DNS name in lower case");

const networkShape = z
  .object({
    /** Name of the Microsoft.Network/virtualNetworks resource that stands for this network. */
    virtualNetwork: nameShape,
    subnet: nameShape.default("default"),
    cidr: z.cidrv4(),
    /** The interface or bridge that gets the endpoint addresses; absent: loopback mode, cidr inside 127.0.0.0/8. */
    interface: z
      .string()
      .regex(/^[A-Za-z0-9_.-]{1,15}$/)
      .optional(),
    /** First and last address that endpoints may get; by default the fourth host to the last. */
    endpointAddresses: z.object({ first: addressShape, last: addressShape }).optional(),
    /** The landing zone's resolver listens here; absent: no resolver. */
    dnsAddress: addressShape.optional(),
    dnsPort: z.number().int().min(1).max(65_535).default(53),
  })
  .refine((network) => network.interface !== undefined || network.cidr.startsWith("127."), {
    message: "without an interface the range must lie in 127.0.0.0/8",
    path: ["cidr"],
  });

const rateShape = (usual: { readonly perSecond: number; readonly burst: number }) =>
  z
    .object({
      perSecond: z.number().positive().max(1_000_000).default(usual.perSecond),
      burst: z.number().int().min(1).max(10_000_000).default(usual.burst),
    })
    .prefault({});

export const hubConfigShape = z
  .object({
    /** Every name of the hub ends with it. */
    domain: domainShape,
    stateDir: z.string().min(1),
    /** Where the public names listen. */
    publicAddresses: z.array(addressShape).min(1).max(16),
    managementPort: z.number().int().min(0).max(65_535).default(443),
    /**
     * One more name that stands for management, login and download together, told apart by the path ("localhost"). For a machine
     * on which no name of the domain resolves; links and documents then carry it, so the port must be a fixed one.
     */
    localName: domainShape.optional(),
    /** Certificates of the customer's own authority for some of the names; the hub's own for all others. */
    certificates: givenCertificatesShape.optional(),
    /** Where every private endpoint listens. */
    endpointPort: z.number().int().min(1).max(65_535).default(443),
    networks: z.array(networkShape).max(64).default([]),
    /** An outside PostgreSQL; absent: a private cluster in the state folder. */
    databaseUrl: z.string().max(2000).optional(),
    /** Certificate authority of the outside server; the system's own unless told. */
    databaseCaFile: z.string().min(1).max(4096).optional(),
    /** Holds the password of the outside server; it stands in no other place. Absent: in PGPASSWORD, or none is needed. */
    databasePasswordFile: z.string().min(1).max(4096).optional(),
    /** Connections of this hub, and one more for notifications. All hubs together must fit the server's max_connections. */
    databaseConnectionsMax: z.number().int().min(2).max(200).default(16),
    /** The embedded blob service's files; hubs that serve the same storage accounts name one folder. In the state folder unless told. */
    blobFolder: z.string().min(1).max(4096).optional(),
    /** Calls on the API, and sign-ins that fail, in a second on average and at once; beyond them the answer is 429. */
    limits: z
      .object({
        principal: rateShape({ perSecond: 1000, burst: 2000 }),
        address: rateShape({ perSecond: 4000, burst: 8000 }),
        failedSignIns: rateShape({ perSecond: 1, burst: 30 }),
        signIns: rateShape({ perSecond: 1, burst: 60 }),
      })
      .prefault({}),
    /** file: the first start makes a program that is Owner and writes its secret to operator.json; none: use the local account. */
    operator: z.enum(["file", "none"]).default("file"),
    /** How people sign in: their identity provider, and how long a sign-in lasts. */
    signIn: signInConfigShape,
    /** Serves Prometheus' form at http://address:port/metrics, without a sign-in; absent: nowhere. */
    metrics: z.object({ address: addressShape.default("127.0.0.1"), port: z.number().int().min(0).max(65_535) }).optional(),
    /** Sends traces over OTLP/HTTP; absent: none, whatever the environment says. */
    traces: tracesConfigShape.optional(),
    /** Where alerts may be sent; absent: nowhere. */
    alerts: alertsConfigShape.optional(),
    /** Passed through to the landing. */
    landing: z.unknown().optional(),
  })
  .refine(({ localName, managementPort }) => localName === undefined || managementPort !== 0, {
    message: "a local name needs a fixed port",
    path: ["managementPort"],
  });

export type HubConfig = z.infer<typeof hubConfigShape>;
export type NetworkConfig = HubConfig["networks"][number];

export function parseHubConfig(value: unknown): HubConfig {
  const config = parseInput(hubConfigShape, value, "the hub's configuration");
  return { ...config, stateDir: resolve(config.stateDir) };
}

/** Where the package has it. */
export const defaultConfigFile = "/etc/watari/hub.yaml";

export async function readHubConfig(path: string): Promise<HubConfig> {
  const text = await readFile(path, "utf8").catch((cause: unknown) => {
    throw new Fault("InputInvalid", "could not read the hub's configuration", {
      evidence: { path, reason: cause instanceof Error && "code" in cause ? String(cause.code) : "unknown" },
      causes: ["there is no such file", "this user may not read it"],
      action: "name the file with --config; docs/guide/install-hub.md shows one",
      cause,
    });
  });
  return parseHubConfig(parse(text));
}

const landingNetworksShape = z.looseObject({ networks: z.record(z.string(), z.unknown()).default({}) });

/** Names of the networks that machines land in, out of the landing's own section. */
export function landingNetworksOf(landing: unknown): readonly string[] {
  return Object.keys(landingNetworksShape.safeParse(landing).data?.networks ?? {});
}

/** Addresses that endpoints of the network may get, lowest first. */
export function* endpointAddresses(network: NetworkConfig): Iterable<string> {
  const { first, last } = endpointRange(network);
  for (let next = first; next <= last; next++) {
    const address = toAddress(next);
    if (address !== network.dnsAddress) yield address;
  }
}

export function endpointAddressCount(network: NetworkConfig): number {
  const { first, last } = endpointRange(network);
  const isDnsInside = network.dnsAddress !== undefined && isEndpointAddress({ ...network, dnsAddress: undefined }, network.dnsAddress);
  return Math.max(0, last - first + 1 - (isDnsInside ? 1 : 0));
}

export function isEndpointAddress(network: NetworkConfig, address: string): boolean {
  const { first, last } = endpointRange(network);
  return isIPv4(address) && address !== network.dnsAddress && toNumber(address) >= first && toNumber(address) <= last;
}

function endpointRange(network: NetworkConfig): { readonly first: number; readonly last: number } {
  const [base = "", length = "32"] = network.cidr.split("/");
  const sizeBits = 32 - Number(length);
  const start = Math.floor(toNumber(base) / 2 ** sizeBits) * 2 ** sizeBits;
  const { endpointAddresses: given } = network;
  // The first addresses are the network's own: router, resolver and the like, as in Azure.
  return given === undefined
    ? { first: start + 4, last: start + 2 ** sizeBits - 2 }
    : { first: toNumber(given.first), last: toNumber(given.last) };
}

/** Whether all of `inner` lies in `outer`. */
export function containsRange(outer: string, inner: string): boolean {
  const [base = "", length = ""] = outer.split("/");
  const [innerBase = "", innerLength = ""] = inner.split("/");
  if (!isIPv4(innerBase) || !/^\d{1,2}$/.test(innerLength) || Number(innerLength) < Number(length)) return false;
  const list = new BlockList();
  list.addSubnet(base, Number(length), "ipv4");
  return list.check(innerBase, "ipv4");
}

function toNumber(address: string): number {
  return address.split(".").reduce((total, part) => total * 256 + Number(part), 0);
}

function toAddress(value: number): string {
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join(".");
}
