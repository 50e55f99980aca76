// The appliance's settings: one typed JSON file in its state folder, few entries, each with a default that is right for most.

import { chmod, mkdir, readFile } from "node:fs/promises";
import { isIP } from "node:net";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { Fault } from "../../contract/errors.ts";

export const defaultStateFolder = "/var/lib/watari-appliance";

const portShape = z.number().int().min(0).max(65_535);

export const applianceConfigShape = z.strictObject({
  /** Name under which the hub shows this appliance. */
  name: z
    .string()
    .regex(/^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$/, "letters, digits and hyphens, at most 63")
    .default("appliance"),
  /** Addresses of this machine that agents dial; also the names in the server certificate. The first one is given to agents. */
  listenAddresses: z
    .array(z.string().refine((text) => isIP(text) !== 0, "not an IP address"))
    .min(1)
    .max(16),
  /** Given to agents in place of the first listen address, where a translation of addresses lies in between. */
  advertiseAddress: z
    .string()
    .refine((text) => isIP(text) !== 0, "not an IP address")
    .optional(),
  controlPort: portShape.default(443),
  dataPort: portShape.default(9443),
  /** Forward proxy for public names, "http://host:port". */
  proxyUrl: z.url({ protocol: /^https?$/ }).optional(),
  /** File with one line "user:password" for the proxy. */
  proxyCredentialsFile: z.string().max(4096).optional(),
  /** Resolvers, "address" or "address:port"; the system's resolver when empty. */
  dnsServers: z.array(z.string().max(64)).max(8).default([]),
  /** Fixed answers, asked before any resolver. */
  hosts: z
    .array(z.object({ name: z.string().max(253), addresses: z.array(z.string().max(64)).min(1).max(16) }))
    .max(1024)
    .default([]),
  /** Ranges on this side of the closed network: vCenters and guests. */
  siteRanges: z.array(z.string().max(64)).max(64).default(["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
  /** Names on this side of the closed network; vCenters that were added are always among them. */
  siteNames: z.array(z.string().max(253)).max(4096).default([]),
  /** PEM file of the authorities that sign the vCenters' certificates, beside those of the system: then a hub's order needs no thumbprint. */
  vcenterAuthoritiesFile: z.string().max(4096).optional(),
  /** Where packs wait when the line is slower than the changes; inside the state folder unless told. */
  spoolFolder: z.string().max(4096).optional(),
  /** Most bytes that may wait there. */
  spoolBytesMax: z
    .number()
    .int()
    .min(1 << 20)
    .default(100 * 2 ** 30),
  /** TCP port of the guests' SSH servers. */
  sshPort: portShape.default(22),
  /** Port of the hub's private endpoints. Change it only in a lab. */
  hubPort: portShape.default(443),
  /** Where metrics are served in Prometheus' form to whoever can reach it, "127.0.0.1:9464"; nowhere unless told. */
  metricsListen: z
    .string()
    .regex(/^(\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:]+\]):\d{1,5}$/, "an address and a port, 127.0.0.1:9464 or [::1]:9464")
    .optional(),
  /** Port of the set-up page, on every listen address; usually 44315. No page unless told. */
  setupPort: portShape.optional(),
  logLevel: z.enum(["error", "warn", "info", "debug"]).default("info"),
});
export type ApplianceConfig = z.output<typeof applianceConfigShape>;
export type ApplianceConfigInput = z.input<typeof applianceConfigShape>;

/** Checks settings from outside. Throws InputInvalid that names each wrong entry. */
export function parseApplianceConfig(value: unknown): ApplianceConfig {
  const parsed = applianceConfigShape.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.slice(0, 20).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw new Fault("InputInvalid", "could not read the appliance's settings", { evidence: { problems } });
}

/** Makes the state folder, readable by this user only. */
export async function createStateFolder(stateFolder: string): Promise<void> {
  await mkdir(stateFolder, { recursive: true, mode: 0o700 });
  await chmod(stateFolder, 0o700);
}

export async function saveConfig(stateFolder: string, config: ApplianceConfig): Promise<void> {
  await writeFileAtomic(join(stateFolder, "config.json"), `${JSON.stringify(config, undefined, 2)}\n`);
}

/** Throws NotFound when the appliance was not set up in this folder. */
export async function loadConfig(stateFolder: string): Promise<ApplianceConfig> {
  const path = join(stateFolder, "config.json");
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new Fault("NotFound", `could not read the appliance's settings in ${stateFolder}`, {
      evidence: { path },
      action: `set the appliance up first: watari appliance init --state ${stateFolder} --listen ADDRESS`,
      cause: error,
    });
  });
  return parseApplianceConfig(parseJson(text, path));
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Fault("InputInvalid", "could not read the appliance's settings: not JSON", { evidence: { path }, cause: error });
  }
}
