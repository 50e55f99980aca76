// What a machine that was made from the appliance's image is told at its first boot: an OVF environment, read as answers of the set-up.

import { isIP } from "node:net";
import { XMLParser } from "fast-xml-parser";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseConsoleAnswers, type ConsoleAnswers } from "./console-answers.ts";
import { applianceConfigShape } from "../config/config.ts";

const addressShape = z.string().refine((text) => isIP(text) !== 0, "not an IP address");

const answersShape = z.strictObject({
  name: applianceConfigShape.shape.name.unwrap().optional(),
  /** "10.10.0.10/24"; DHCP without it. */
  address: z
    .string()
    .refine(
      (text) => /^[^/]+\/\d{1,3}$/.test(text) && isIP(text.split("/")[0] ?? "") !== 0,
      "not an address with its prefix, 10.10.0.10/24",
    )
    .refine((text) => Number(text.split("/")[1]) <= (isIP(text.split("/")[0] ?? "") === 4 ? 32 : 128), "a prefix that is too long")
    .optional(),
  gateway: addressShape.optional(),
  dnsServers: z.array(addressShape).max(8).default([]),
  timeServers: z
    .array(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9.:-]{0,252}$/, "not a host name"))
    .max(8)
    .default([]),
  proxyUrl: applianceConfigShape.shape.proxyUrl,
});
export type Answers = z.output<typeof answersShape>;

const xmlBytesMax = 256 << 10;
/** As packaging/appliance-image/ovf.ts declares them; lists are separated by commas. */
const properties = {
  name: "name",
  address: "address",
  gateway: "gateway",
  dns: "dnsServers",
  ntp: "timeServers",
  proxy: "proxyUrl",
} as const;
const lists: readonly string[] = ["dnsServers", "timeServers"];

const propertyShape = z.object({ "@_key": z.string(), "@_value": z.string() });
/** A section without properties is text of white space to the parser. */
const sectionShape = z.union([z.object({ Property: z.array(propertyShape).default([]) }), z.string().transform(() => ({ Property: [] }))]);
const environmentShape = z.object({ Environment: z.object({ PropertySection: z.array(sectionShape).default([]) }) });

/** DSP0243, OVF environment. Properties of others are left alone; one that is empty was not given. Throws InputInvalid. */
export function parseOvfEnvironment(xml: string): Answers {
  if (Buffer.byteLength(xml) > xmlBytesMax) throw new Fault("InputInvalid", `the OVF environment is longer than ${xmlBytesMax} bytes`);
  const parser = new XMLParser({
    ...{ ignoreAttributes: false, removeNSPrefix: true, parseAttributeValue: false, processEntities: true },
    isArray: (name) => name === "PropertySection" || name === "Property",
  });
  const read = environmentShape.safeParse(parseXml(parser, xml));
  if (!read.success) throw new Fault("InputInvalid", "this is not an OVF environment", { cause: read.error });
  const given: Record<string, unknown> = {};
  for (const { "@_key": key, "@_value": value } of read.data.Environment.PropertySection.flatMap(({ Property }) => Property)) {
    // Some hosts tell the class and the instance with the key: "watari.address.1".
    const field = Object.entries(properties).find(([name]) => key.split(".").includes(name))?.[1];
    const text = value.trim();
    if (field === undefined || text === "") continue;
    given[field] = lists.includes(field) ? text.split(/[\s,]+/).filter((each) => each !== "") : text;
  }
  return parseAnswers(given);
}

function parseAnswers(value: unknown): Answers {
  const parsed = answersShape.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.slice(0, 20).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw new Fault("InputInvalid", "could not read the answers for this appliance", { evidence: { problems } });
}

/** Nothing was told: DHCP, and set-up asks for the rest. */
export const noAnswers: Answers = { dnsServers: [], timeServers: [] };

/** As the set-up at the console takes them. */
export function toConsoleAnswers({ name, address, gateway, dnsServers, timeServers, proxyUrl }: Answers, device: string): ConsoleAnswers {
  const network = { device, ...(address === undefined ? {} : { address }), ...(gateway === undefined ? {} : { gateway }), dnsServers };
  return parseConsoleAnswers({
    ...{ name: name ?? "appliance", network },
    ...(timeServers.length === 0 ? {} : { timeServers }),
    ...(proxyUrl === undefined ? {} : { proxy: { url: proxyUrl } }),
  });
}

function parseXml(parser: XMLParser, xml: string): unknown {
  try {
    return parser.parse(xml, true);
  } catch (cause) {
    throw new Fault("InputInvalid", "the OVF environment is not XML", { cause });
  }
}
