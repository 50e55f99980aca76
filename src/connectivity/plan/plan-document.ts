// The network plan: one document that says who stands where, which names are private, and which proxy is the way out.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { proxyUrlShape, rangeShape } from "../network-shapes.ts";
import { cloudNames } from "./service-names.ts";

const keyShape = z.string().regex(/^[a-z][a-z0-9-]{0,39}$/, "a-z, 0-9 and -, beginning with a letter");
const addressShape = z.union([z.ipv4(), z.ipv6()]);
const portShape = z.number().int().min(1).max(65_535);
const label = "[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?";
const hostShape = z
  .string()
  .max(253)
  .regex(new RegExp(`^(${label}\\.)*${label}\\.?$`), "not a host name")
  .transform((name) => name.toLowerCase().replace(/\.$/, ""));
const suffixShape = z
  .string()
  .max(253)
  .regex(new RegExp(`^(\\*?\\.)?(${label}\\.)*${label}$`), "not a host name or a suffix such as *.example.com")
  .transform((name) => name.toLowerCase().replace(/^\*\./, "."));

const zoneShape = z
  .strictObject({
    /** Addresses of the machines that stand here. */
    ranges: z.array(rangeShape).min(1).max(64),
    /** Resolvers that the machines here ask; none: their names come from hosts files. */
    dnsServers: z.array(addressShape).max(8).default([]),
    /** The proxy that leads out of this zone. */
    proxy: keyShape.optional(),
    /** true: machines here reach public names without a proxy. */
    internet: z.boolean().default(false),
  })
  .refine((zone) => !(zone.internet && zone.proxy !== undefined), "has a proxy and the internet at once; say one of them");

const lineShape = z.strictObject({
  /** Connections are opened from here … */
  from: keyShape,
  /** … to there. What may pass in both directions is two lines. */
  to: keyShape,
  /** Largest packet that passes, in bytes. */
  mtuBytes: z.number().int().min(576).max(9216).default(1500),
  /** true: the addresses of `from` are not what `to` sees. */
  nat: z.boolean().default(false),
});

const proxyShape = z.strictObject({
  url: proxyUrlShape,
  authentication: z.enum(["none", "basic", "negotiate"]).default("none"),
  /** File with one line "user:password" on the machine that uses the proxy. */
  credentialsFile: z.string().max(4096).optional(),
  /** Proxy auto-configuration that the zone's machines obey; a check holds its answers against the plan. */
  pacFile: z.string().max(4096).optional(),
  /** Present when the proxy opens TLS and signs it anew. */
  inspection: z
    .strictObject({
      /** PEM of the authority that it signs with. */
      authorityFile: z.string().max(4096),
      /** Names that it leaves as they are. */
      exempt: z.array(suffixShape).max(256).default([]),
    })
    .optional(),
});

const vaultEndpointShape = z.strictObject({
  for: z.literal("vault"),
  zone: keyShape,
  /** First part of the five names: the vault's id, as its DNS settings show it. */
  vaultId: z.string().regex(/^[A-Za-z0-9-]{1,60}$/),
  /** The part after the service: the region ("japaneast"), or Azure's geo code ("jpe"). */
  geo: z.string().regex(/^[a-z0-9]{1,40}$/),
  /** Address of each service; one that is not known yet is left out. */
  addresses: z.record(z.string().regex(/^[a-z]{2,8}[0-9]$/), addressShape).default({}),
});
const storageEndpointShape = z.strictObject({
  for: z.literal("storage"),
  zone: keyShape,
  account: z.string().regex(/^[a-z0-9]{3,24}$/),
  address: addressShape.optional(),
});
const namedEndpointShape = z.strictObject({
  for: z.enum(["project", "other"]),
  zone: keyShape,
  /** What it is, in a few words; shown in requests to the network team. */
  why: z.string().max(200).default("private endpoint"),
  /** Names as its DNS settings show them. */
  names: z
    .array(z.strictObject({ name: hostShape, address: addressShape.optional() }))
    .min(1)
    .max(64),
});

const roleShape = z.strictObject({ zone: keyShape, name: hostShape.optional(), address: addressShape });

export const planDocumentShape = z.strictObject({
  version: z.literal(1),
  /** Whose service names: this product's hub, or Azure's in one of its clouds. */
  profile: z.enum(["watari", "azure-public", "azure-usgov", "azure-china"]).default("watari"),
  /** Profile watari: the domain that every name of the hub ends with. */
  domain: hostShape.optional(),
  zones: z.record(keyShape, zoneShape).refine((zones) => Object.keys(zones).length <= 32, "more than 32 zones"),
  lines: z.array(lineShape).max(256).default([]),
  proxies: z.record(keyShape, proxyShape).default({}),
  privateEndpoints: z
    .array(z.discriminatedUnion("for", [vaultEndpointShape, storageEndpointShape, namedEndpointShape]))
    .max(64)
    .default([]),
  vcenters: z
    .array(z.strictObject({ zone: keyShape, name: hostShape, address: addressShape.optional(), port: portShape.default(443) }))
    .max(64)
    .default([]),
  timeServers: z
    .array(z.strictObject({ zone: keyShape.optional(), name: hostShape }))
    .max(8)
    .default([]),
  roles: z.strictObject({
    appliance: roleShape,
    processServers: z
      .array(roleShape.extend({ name: hostShape }))
      .max(64)
      .default([]),
    /** The source machines. */
    agents: z.strictObject({ zone: keyShape, ranges: z.array(rangeShape).max(64).default([]) }),
    /** Where the browser stands that opens the appliance's set-up page and the portal. */
    operator: z.strictObject({ zone: keyShape, ranges: z.array(rangeShape).max(64).default([]) }).optional(),
  }),
  /** More public names that the site's machines need, beside those of the profile. */
  publicNames: z
    .array(z.strictObject({ name: suffixShape, port: portShape.default(443), why: z.string().max(200).default("added by the plan") }))
    .max(256)
    .default([]),
});

export type PlanInput = z.input<typeof planDocumentShape>;
export type PlanDocument = z.output<typeof planDocumentShape>;
export type Zone = PlanDocument["zones"][string];
export type PlanProfile = PlanDocument["profile"];

/** JSON schema of a document as a person writes it. */
export function planSchema(): unknown {
  return { ...z.toJSONSchema(planDocumentShape, { io: "input", target: "draft-2020-12" }), title: "Network plan of Watari" };
}

/** Checks a document from outside. Throws InputInvalid that names each wrong field and each reference that leads nowhere. */
export function parsePlan(document: unknown): PlanDocument {
  const parsed = planDocumentShape.safeParse(document);
  const problems = parsed.success
    ? findBrokenReferences(parsed.data)
    : parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  if (parsed.success && problems.length === 0) return parsed.data;
  throw new Fault("InputInvalid", "could not read the network plan", {
    evidence: { problems: problems.slice(0, 20), problemCount: problems.length },
    action: "mend these fields; `watari net init` prints an example, `watari net schema` the schema for editors",
  });
}

function findBrokenReferences(plan: PlanDocument): string[] {
  const problems: string[] = [];
  const wantZone = (zone: string, where: string): void => {
    if (plan.zones[zone] === undefined) problems.push(`${where}: there is no zone ${zone}`);
  };
  if (plan.profile === "watari" && plan.domain === undefined) problems.push("domain: is needed with profile watari");
  if (plan.profile !== "watari" && plan.domain !== undefined) problems.push(`domain: profile ${plan.profile} has its own names`);
  for (const [name, zone] of Object.entries(plan.zones))
    if (zone.proxy !== undefined && plan.proxies[zone.proxy] === undefined)
      problems.push(`zones.${name}.proxy: there is no proxy ${zone.proxy}`);
  for (const [index, line] of plan.lines.entries()) {
    wantZone(line.from, `lines.${index}.from`);
    wantZone(line.to, `lines.${index}.to`);
  }
  const { vaultZone, vaultServices } = cloudNames(plan.profile, plan.domain);
  for (const [index, endpoint] of plan.privateEndpoints.entries()) {
    const where = `privateEndpoints.${index}`;
    wantZone(endpoint.zone, `${where}.zone`);
    if (endpoint.for !== "vault") continue;
    if (vaultZone === undefined)
      problems.push(`${where}: no document tells the vaults' private zone of ${plan.profile}; give the names with "for: other"`);
    for (const service of Object.keys(endpoint.addresses))
      if (!vaultServices.includes(service))
        problems.push(`${where}.addresses.${service}: no such service; a vault has ${vaultServices.join(", ")}`);
  }
  for (const [index, vcenter] of plan.vcenters.entries()) wantZone(vcenter.zone, `vcenters.${index}.zone`);
  for (const [index, server] of plan.timeServers.entries())
    if (server.zone !== undefined) wantZone(server.zone, `timeServers.${index}.zone`);
  problems.push(
    ...findRepeated(
      "publicNames",
      plan.publicNames.map(({ name, port }) => `${name}:${port}`),
    ),
  );
  problems.push(
    ...findRepeated(
      "timeServers",
      plan.timeServers.map(({ name }) => name),
    ),
  );
  problems.push(
    ...findRepeated(
      "vcenters",
      plan.vcenters.map(({ name }) => name),
    ),
  );
  const { appliance, processServers, agents, operator } = plan.roles;
  problems.push(
    ...findRepeated(
      "roles.processServers",
      processServers.map(({ name }) => name),
    ),
  );
  wantZone(appliance.zone, "roles.appliance.zone");
  for (const [index, server] of processServers.entries()) wantZone(server.zone, `roles.processServers.${index}.zone`);
  wantZone(agents.zone, "roles.agents.zone");
  if (operator !== undefined) wantZone(operator.zone, "roles.operator.zone");
  return problems;
}

function findRepeated(where: string, names: readonly string[]): string[] {
  const repeated = new Set(names.filter((name, index) => names.indexOf(name) !== index));
  return [...repeated].map((name) => `${where}: ${name} stands there twice`);
}
