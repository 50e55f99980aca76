// What the console set-up asks, as one document: typed in by a person or read from a file, checked by the same schema.

import { isIP } from "node:net";
import { parse } from "yaml";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";

const nameShape = z.string().regex(/^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/, "letters, digits and hyphens, at most 63");
const addressShape = z.string().refine((text) => isIP(text) !== 0, "not an IP address");
const hostOrAddressShape = z
  .string()
  .max(253)
  .regex(/^[A-Za-z0-9:]([A-Za-z0-9.:_-]*[A-Za-z0-9])?$/, "not a name or an address");

/** "10.1.0.5/24": with its prefix, for the kernel has to know what is on the link. */
const interfaceAddressShape = z.string().refine(isInterfaceAddress, "not an address with its prefix, 10.1.0.5/24");

const networkShape = z.strictObject({
  device: z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/, "not the name of an interface"),
  /** Absent: addresses, gateway and resolvers come by DHCP. */
  address: interfaceAddressShape.optional(),
  gateway: addressShape.optional(),
  /** Of this machine and of the appliance. */
  dnsServers: z.array(addressShape).max(8).default([]),
});

export const consoleAnswersShape = z.strictObject({
  /** Of the machine, and of the appliance at the hub. */
  name: nameShape,
  /** Absent: the machine's network stays as it is. */
  network: networkShape.optional(),
  /** Addresses that agents dial; the machine's own, loopback aside, unless told. */
  listenAddresses: z.array(addressShape).min(1).max(16).optional(),
  /** Absent: who keeps the clock stays as it is. */
  timeServers: z.array(hostOrAddressShape).min(1).max(8).optional(),
  proxy: z
    .strictObject({
      url: z.url({ protocol: /^https?$/ }).max(300),
      userName: z.string().min(1).max(256).optional(),
      /** File with the password, read once. */
      passwordFile: z.string().max(4096).optional(),
      /** A public name that the proxy must let pass. Without one only the proxy itself is tried. */
      tryName: hostOrAddressShape.optional(),
    })
    .optional(),
  setupPort: z.number().int().min(1).max(65_535).default(44_315),
});
export type ConsoleAnswers = z.output<typeof consoleAnswersShape>;
export type NetworkAnswers = z.output<typeof networkShape>;

/** Throws InputInvalid that names each wrong entry. */
export function parseConsoleAnswers(value: unknown): ConsoleAnswers {
  const parsed = consoleAnswersShape.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.slice(0, 20).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw new Fault("InputInvalid", "could not read the answers", { evidence: { problems } });
}

const charactersMax = 64_000;

export function parseAnswersFile(text: string): ConsoleAnswers {
  if (text.length > charactersMax)
    throw new Fault("InputInvalid", "could not read the answers: the file is too large", { evidence: { charactersMax } });
  try {
    return parseConsoleAnswers(parse(text, { maxAliasCount: 0 }));
  } catch (error) {
    if (error instanceof Fault) throw error;
    throw new Fault("InputInvalid", "could not read the answers: not YAML", { cause: error });
  }
}

/** Why a text typed for one entry is wrong; undefined when it is right. */
export function wrongness(entry: z.ZodType, value: unknown): string | undefined {
  const parsed = entry.safeParse(value);
  return parsed.success ? undefined : (parsed.error.issues[0]?.message ?? "not right");
}

export const entryShapes = {
  name: nameShape,
  interfaceAddress: interfaceAddressShape,
  address: addressShape,
  addresses: z.array(addressShape).max(8),
  hosts: z.array(hostOrAddressShape).max(8),
  host: hostOrAddressShape,
  proxyUrl: z.url({ protocol: /^https?$/ }),
};

function isInterfaceAddress(text: string): boolean {
  const [address = "", prefix = "", ...rest] = text.split("/");
  const bits = Number(prefix);
  const bitsMax = { 0: 0, 4: 32, 6: 128 }[isIP(address)] ?? 0;
  return rest.length === 0 && /^\d{1,3}$/.test(prefix) && bits >= 1 && bits <= bitsMax;
}
