// For tests: a hub of its own on loopback, and a client that speaks TLS to a name at an address that the test names.

import { request as httpsRequest, type RequestOptions } from "node:https";
import { createServer } from "node:net";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { silentLog, type Log } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { faultReportShape } from "../contract/shapes.ts";
import { parseHubConfig } from "./hub-config.ts";
import { createAnswerCheck, endProgram } from "./openapi/check-answers.ts";
import { startHub, type HubEnvironment, type RunningHub } from "./main.ts";

export const testDomain = "watari.test";

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: unknown;
}

export interface Target {
  readonly name: string;
  readonly address: string;
  readonly port: number;
  readonly ca: string;
  /** Host header when it shall differ from the TLS name. */
  readonly host?: string;
  readonly certificate?: { readonly cert: string; readonly key: string };
}

/** One HTTPS call; JSON bodies both ways. */
export async function callTarget(
  target: Target,
  call: { readonly method: string; readonly path: string; readonly body?: unknown; readonly headers?: Readonly<Record<string, string>> },
): Promise<Answer> {
  const text = call.body === undefined ? undefined : typeof call.body === "string" ? call.body : JSON.stringify(call.body);
  const options: RequestOptions = {
    host: target.address,
    port: target.port,
    servername: target.name,
    ca: target.ca,
    method: call.method,
    path: call.path,
    agent: false,
    ...target.certificate,
    headers: {
      host: `${target.host ?? target.name}:${target.port}`,
      ...(text === undefined ? {} : { "content-type": "application/json", "content-length": String(Buffer.byteLength(text)) }),
      ...call.headers,
    },
  };
  return await new Promise((resolve, reject) => {
    const request = httpsRequest(options, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("end", () => {
        const answer = Buffer.concat(chunks).toString("utf8");
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: parseJson(answer) });
      });
      response.on("error", reject);
    });
    request.on("error", reject);
    request.end(text);
  });
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** The fault's id in an ARM error envelope or an appliance route's report; undefined for other bodies. */
export function codeOf(answer: Answer): string | undefined {
  const envelope = z
    .object({ error: z.object({ code: z.string(), additionalInfo: z.array(z.object({ info: faultReportShape })) }) })
    .safeParse(answer.body);
  if (envelope.success) return envelope.data.error.additionalInfo[0]?.info.id ?? envelope.data.error.code;
  return faultReportShape.safeParse(answer.body).data?.id;
}

/** A port that was free a moment ago on every loopback address. */
export async function findFreePort(): Promise<number> {
  return await new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "0.0.0.0", () => {
      const address = server.address();
      server.close(() => resolve(typeof address === "object" && address !== null ? address.port : 0));
    });
  });
}

const operatorShape = z.object({
  managementUrl: z.string(),
  loginUrl: z.string(),
  tenantId: z.string(),
  clientId: z.string(),
  clientSecret: z.string(),
  subscriptionId: z.string(),
  caPem: z.string(),
});

/** Every answer of a test's hub is held against its description; one that is not as described fails the test, whatever the test looks at. */
const answerWatch = createAnswerCheck(endProgram);

export interface TestHub {
  readonly hub: RunningHub;
  readonly operator: z.infer<typeof operatorShape>;
  readonly groupPath: string;
  target(name: string): Target;
  token(): Promise<string>;
  /** A call on the management API as the operator. */
  arm(method: string, path: string, body?: unknown, headers?: Readonly<Record<string, string>>): Promise<Answer>;
}

/** A loopback network of the test's own: 127.<a>.<b>.0/24. */
export function loopbackNetwork(): string {
  const [first = 0, second = 0] = systemRandom.bytes(2);
  return `127.${64 + (first % 128)}.${second}.0/24`;
}

export interface TestHubOptions {
  readonly stateDir: string;
  readonly databaseUrl?: string;
  /** Of a server outside: by what its certificate is trusted, and the password. */
  readonly databaseCaFile?: string;
  readonly databasePasswordFile?: string;
  readonly cidr: string;
  readonly endpointPort: number;
  readonly dns?: { readonly dnsAddress: string; readonly dnsPort: number };
  readonly hasMetrics?: boolean;
  readonly environment?: Partial<HubEnvironment>;
  readonly log?: Log;
  /** As in the configuration. */
  readonly limits?: unknown;
  readonly alerts?: unknown;
  readonly signIn?: unknown;
  /** The public names listen at this port, and answer to "localhost" too. */
  readonly localPort?: number;
}

export async function openTestHub(options: TestHubOptions): Promise<TestHub> {
  const config = parseHubConfig({
    domain: testDomain,
    stateDir: options.stateDir,
    publicAddresses: ["127.0.0.1"],
    managementPort: options.localPort ?? 0,
    localName: options.localPort === undefined ? undefined : "localhost",
    endpointPort: options.endpointPort,
    networks: [{ virtualNetwork: "landing", cidr: options.cidr, ...options.dns }],
    ...{ databaseUrl: options.databaseUrl, databaseCaFile: options.databaseCaFile, databasePasswordFile: options.databasePasswordFile },
    limits: options.limits,
    alerts: options.alerts,
    signIn: options.signIn,
    metrics: options.hasMetrics === true ? { port: 0 } : undefined,
  });
  const { log = silentLog } = options;
  const environment = { clock: systemClock, random: systemRandom, log, extensions: [], answerWatch, ...options.environment };
  const hub = await startHub(config, environment);
  const operator = operatorShape.parse(JSON.parse(await readFile(join(config.stateDir, "operator.json"), "utf8")));
  const target = (name: string): Target => ({ name, address: "127.0.0.1", port: hub.port, ca: hub.caPem });
  let kept: string | undefined;
  const token = async (): Promise<string> => (kept ??= await signIn(target(`login.${testDomain}`), operator));
  return {
    hub,
    operator,
    groupPath: `/subscriptions/${operator.subscriptionId}/resourceGroups/Move`,
    target,
    token,
    arm: async (method, path, body, headers) => {
      const separator = path.includes("?") ? "&" : "?";
      return await callTarget(target(`management.${testDomain}`), {
        method,
        path: `${path}${separator}api-version=2025-08-01`,
        body,
        headers: { authorization: `Bearer ${await token()}`, ...headers },
      });
    },
  };
}

export async function signIn(
  login: Target,
  client: { readonly tenantId: string; readonly clientId: string; readonly clientSecret: string },
): Promise<string> {
  const form = new URLSearchParams({
    grant_type: "client_credentials",
    client_id: client.clientId,
    client_secret: client.clientSecret,
    scope: `https://management.${testDomain}/.default`,
  });
  const answer = await callTarget(login, {
    method: "POST",
    path: `/${client.tenantId}/oauth2/v2.0/token`,
    body: form.toString(),
    headers: { "content-type": "application/x-www-form-urlencoded" },
  });
  if (answer.status !== 200) throw new Error(`sign-in was answered with ${answer.status}: ${JSON.stringify(answer.body)}`);
  return z.object({ access_token: z.string() }).parse(answer.body).access_token;
}

/** The article's landing zone: network, storage account, vault with its role, zones and endpoints. Answers the ids. */
export async function createLandingZone(
  test: Pick<TestHub, "arm" | "groupPath">,
  cidr: string,
  vaults: readonly string[] = ["vault1"],
  /** "role": nobody tells the vaults their storage account, as Azure's clients cannot. */
  storageBy: "property" | "role" = "property",
): Promise<{ readonly storageId: string; readonly vaultIds: readonly string[] }> {
  const { groupPath } = test;
  const storageId = `${groupPath}/providers/Microsoft.Storage/storageAccounts/packs1`;
  const networkId = `${groupPath}/providers/Microsoft.Network/virtualNetworks/landing`;
  const put = async (path: string, body: unknown): Promise<unknown> => {
    const answer = await test.arm("PUT", path, body);
    if (answer.status !== 200 && answer.status !== 201) throw new Error(`PUT ${path}: ${answer.status} ${JSON.stringify(answer.body)}`);
    return answer.body;
  };
  const connect = async (name: string, target: string, groupId: string, zone: string): Promise<void> => {
    const zoneId = `${groupPath}/providers/Microsoft.Network/privateDnsZones/${zone}`;
    const endpointId = `${groupPath}/providers/Microsoft.Network/privateEndpoints/${name}`;
    await put(zoneId, { location: "global", properties: {} });
    await put(`${zoneId}/virtualNetworkLinks/landing`, { location: "global", properties: { virtualNetwork: { id: networkId } } });
    const connection = { name, properties: { privateLinkServiceId: target, groupIds: [groupId] } };
    await put(endpointId, {
      location: "lab1",
      properties: { subnet: { id: `${networkId}/subnets/default` }, privateLinkServiceConnections: [connection] },
    });
    await put(`${endpointId}/privateDnsZoneGroups/default`, {
      properties: { privateDnsZoneConfigs: [{ name: "zone", properties: { privateDnsZoneId: zoneId } }] },
    });
  };
  await put(groupPath, { location: "lab1" });
  const subnets = [{ name: "default", properties: { addressPrefix: cidr } }];
  await put(networkId, { location: "lab1", properties: { addressSpace: { addressPrefixes: [cidr] }, subnets } });
  await put(storageId, { location: "lab1", kind: "StorageV2", sku: { name: "Standard_LRS" }, properties: {} });
  await connect("packs1-pe", storageId, "blob", `privatelink.blob.${testDomain}`);
  const vaultIds: string[] = [];
  for (const name of vaults) {
    const vaultId = `${groupPath}/providers/Microsoft.RecoveryServices/vaults/${name}`;
    const vault = z
      .object({ identity: z.object({ principalId: z.string() }) })
      .parse(await put(vaultId, { location: "lab1", properties: storageBy === "role" ? {} : { watariStorageAccountId: storageId } }));
    await put(`${storageId}/providers/Microsoft.Authorization/roleAssignments/${systemRandom.uuid()}`, {
      properties: {
        principalId: vault.identity.principalId,
        roleDefinitionId: "/providers/Microsoft.Authorization/roleDefinitions/ba92f5b4-2d11-453d-a403-e96b0029c9fe",
      },
    });
    await connect(`${name}-pe`, vaultId, "AzureSiteRecovery", `privatelink.siterecovery.${testDomain}`);
    vaultIds.push(vaultId);
  }
  return { storageId, vaultIds };
}
