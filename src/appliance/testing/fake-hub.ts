// For tests: the hub's end of the appliance protocol over real TLS, and a storage account behind it that is Azurite.

import { spawn } from "node:child_process";
import { createHmac, randomBytes, randomUUID } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { TLSSocket } from "node:tls";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import {
  BlobServiceClient,
  ContainerSASPermissions,
  generateBlobSASQueryParameters,
  StorageSharedKeyCredential,
} from "@azure/storage-blob";
import { systemClock, toDate, toTimestamp } from "../../base/clock.ts";
import {
  appliancePollRequestShape,
  applianceRegisterRequestShape,
  applianceRoutes,
  certificateRequestShape,
  inventoryShape,
  privateServices,
  sealedPointsShape,
  telemetryShape,
  type ApplianceOrder,
  type ApplianceOrderResult,
  type Inventory,
  type OtherAppliance,
  type RegistrationKey,
  type SealedPointReport,
  type SentVaultKeys,
} from "../../contract/appliance-protocol.ts";
import { asFault, Fault, toReport, type FaultReport } from "../../contract/errors.ts";
import { parseApplianceId, parseMachineId, parseVaultId, type VaultId } from "../../contract/ids.ts";
import { certificateDigestOf, openSiteAuthority } from "../identity/site-authority.ts";
import type { SealedFacts } from "../state/facts.ts";

const accountName = "devstoreaccount1";
const accountKey = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const serviceHost = (service: string): string => `${service}.vault.watari.test`;

export interface FakeHub extends AsyncDisposable {
  readonly port: number;
  readonly caPem: string;
  /** Settings by which an appliance finds this hub. */
  readonly hosts: readonly { readonly name: string; readonly addresses: readonly string[] }[];
  readonly accountUrl: string;
  readonly container: string;
  readonly vaultId: VaultId;
  readonly vaultKey: Uint8Array;
  createKey(over?: Partial<RegistrationKey>): RegistrationKey;
  /** To any appliance that asks, unless one is named. */
  give(order: ApplianceOrder, applianceId?: string): Promise<ApplianceOrderResult>;
  readonly points: Map<string, SealedPointReport>;
  readonly inventories: Inventory[];
  /** Of each telling of telemetry. */
  readonly healthErrors: FaultReport[][];
  readonly registeredNames: string[];
  /** Told of each call before it is answered, with whether it came with a renewed certificate for the first time. */
  onCall: (route: string, isFirstUse: boolean) => Promise<void>;
  /** What the route vaultKeys answers. */
  readonly keys: { sent: SentVaultKeys };
  /** False: forgets a certificate as soon as it has given it, as a hub that was restored from a backup. */
  keepsOffers: boolean;
}

export interface FakeHubOptions {
  /** Puts something before the storage account; answers the address that appliances are told. */
  readonly front?: (
    accountUrl: string,
    identity: { readonly certPem: string; readonly keyPem: string; readonly caPem: string },
  ) => Promise<string>;
}

export const storeCredential = { kind: "sharedKey", accountName, accountKey } as const;

// oxlint-disable-next-line max-lines-per-function -- one hub with shared tables; its routes read best side by side
export async function startFakeHub(options: FakeHubOptions = {}): Promise<FakeHub> {
  await using cleanup = new AsyncDisposableStack();
  const kept = new Map<string, string>();
  const facts: SealedFacts = {
    read: (name) => kept.get(name),
    write: (name, value) => void kept.set(name, value),
    remove: (name) => void kept.delete(name),
  };
  const authority = await openSiteAuthority(facts, systemClock);
  const names = privateServices.map(serviceHost);
  const identity = await authority.issueServerIdentity([...names, "localhost"]);
  const accountUrl = await startAzurite(identity, cleanup);
  const toldUrl = (await options.front?.(accountUrl, { ...identity, caPem: authority.caPem })) ?? accountUrl;
  const container = `vault-${randomUUID()}`;
  const vaultKey = new Uint8Array(randomBytes(32));
  const vaultId = parseVaultId(randomUUID());
  const secrets = new Map<string, { readonly secret: string; readonly vault: string; used: string | undefined }>();
  /** What registered appliances told last; those of keys with the same vault hear of each other. */
  const told = new Map<
    string,
    Pick<OtherAppliance, "applianceId" | "name" | "spoolBytes" | "spoolBytesMax" | "system"> & { readonly vault: string }
  >();
  const orders = new Map<string, { readonly order: ApplianceOrder; readonly applianceId: string | undefined }>();
  const waiting = new Map<string, (result: ApplianceOrderResult) => void>();
  const hub = {
    points: new Map<string, SealedPointReport>(),
    inventories: [] as Inventory[],
    healthErrors: [] as FaultReport[][],
    registeredNames: [] as string[],
    keys: { sent: { current: 1, keys: [{ generation: 1, key: Buffer.from(vaultKey).toString("base64") }] } },
  };
  /** By appliance id, as the hub keeps them. */
  const certificates = new Map<string, { current: string; next: string | undefined }>();
  const calls: { on: FakeHub["onCall"]; keepsOffers: boolean } = { on: async () => undefined, keepsOffers: true };
  const sign = async (csrPem: string, applianceId: string): Promise<string> => {
    const proof = createHmac("sha256", authority.passphrase).update(csrPem).digest("hex");
    return await authority.signAgentRequest({ csrPem, proof }, parseMachineId(applianceId));
  };
  const grant = () => {
    const expiresAtMs = systemClock.nowMs() + 12 * 3600_000;
    const sas = generateBlobSASQueryParameters(
      { containerName: container, permissions: ContainerSASPermissions.parse("racwdl"), expiresOn: toDate(expiresAtMs) },
      new StorageSharedKeyCredential(accountName, accountKey),
    ).toString();
    return { accountUrl: toldUrl, container, sas: `?${sas}`, expiresAt: toTimestamp(expiresAtMs) };
  };
  const routes: Record<string, (body: unknown, applianceId: string) => Promise<unknown>> = {
    certificate: async (body, applianceId) => {
      const certificatePem = await sign(certificateRequestShape.parse(body).csrPem, applianceId);
      const known = certificates.get(applianceId);
      if (known !== undefined && calls.keepsOffers) known.next = certificateDigestOf(certificatePem);
      return { certificatePem, caPem: authority.caPem };
    },
    register: async (body) => {
      const request = applianceRegisterRequestShape.parse(body);
      const key = secrets.get(request.keyId);
      const proof = createHmac("sha256", Buffer.from(key?.secret ?? "", "base64url"))
        .update(request.csrPem)
        .digest("hex");
      if (key === undefined || proof !== request.proof) throw new Fault("Unauthorized", "unknown key");
      if (key.used !== undefined && key.used !== request.csrPem) throw new Fault("KeyUsed", "the registration key was used");
      key.used = request.csrPem;
      const applianceId = parseApplianceId(randomUUID());
      hub.registeredNames.push(request.name);
      told.set(applianceId, { applianceId, name: request.name, vault: key.vault });
      const certificatePem = await sign(request.csrPem, applianceId);
      certificates.set(applianceId, { current: certificateDigestOf(certificatePem), next: undefined });
      const vault = { vaultId, keyId: "k1", key: Buffer.from(vaultKey).toString("base64") };
      return { applianceId, certificatePem, caPem: authority.caPem, vault, storage: grant() };
    },
    vaultKeys: async () => await Promise.resolve(hub.keys.sent),
    storageGrant: async () => await Promise.resolve(grant()),
    poll: async (body) => {
      const request = appliancePollRequestShape.parse(body);
      for (const result of request.results) {
        orders.delete(result.orderId);
        waiting.get(result.orderId)?.(result);
      }
      const endMs = systemClock.monotonicMs() + Math.min(request.waitSeconds, 1) * 1000;
      const due = (): ApplianceOrder[] =>
        [...orders.values()].flatMap(({ order, applianceId }) =>
          (applianceId ?? request.applianceId) === request.applianceId ? order : [],
        );
      while (due().length === 0 && systemClock.monotonicMs() < endMs) await systemClock.sleep(10);
      return { orders: due() };
    },
    inventory: async (body) => await Promise.resolve(void hub.inventories.push(inventoryShape.parse(body))),
    points: async (body) => {
      const { points, removedPointIds = [] } = sealedPointsShape.parse(body);
      for (const point of points) hub.points.set(point.pointId, point);
      for (const pointId of removedPointIds) hub.points.delete(pointId);
      return await Promise.resolve({});
    },
    telemetry: async (body, applianceId) => {
      const { healthErrors, spoolBytes, spoolBytesMax, system } = telemetryShape.parse(body);
      hub.healthErrors.push(healthErrors);
      const own = told.get(applianceId);
      if (own !== undefined) told.set(applianceId, { ...own, spoolBytes, spoolBytesMax, ...(system === undefined ? {} : { system }) });
      const others = [...told.values()].filter((other) => other.vault === own?.vault && other.applianceId !== applianceId);
      return await Promise.resolve({
        others: others.map(({ vault: _vault, ...other }) => ({ ...other, health: "Normal", silentSeconds: 5 })),
      });
    },
    progress: async () => await Promise.resolve({}),
  };
  const server = createServer({
    cert: identity.certPem,
    key: identity.keyPem,
    ca: authority.caPem,
    requestCert: true,
    rejectUnauthorized: false,
  });
  server.on("request", (request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const [name, route] = Object.entries(applianceRoutes).find(([, each]) => each.path === request.url) ?? [];
      const handle = name === undefined ? undefined : routes[name];
      try {
        if (handle === undefined || route === undefined) throw new Fault("NotFound", "no such route");
        if (!(request.headers.host ?? "").startsWith(`${serviceHost(route.service)}:`)) throw new Fault("NameNotServed", "another name");
        const socket = request.socket as TLSSocket; // The server speaks TLS only.
        if (name !== "register" && !socket.authorized) throw new Fault("Unauthorized", "no certificate");
        const { applianceId, isFirstUse } = name === "register" ? { applianceId: "", isFirstUse: false } : admit(socket, certificates);
        await calls.on(name ?? "", isFirstUse);
        const answer = (await handle(JSON.parse(Buffer.concat(chunks).toString("utf8")), applianceId)) ?? {};
        response.end(JSON.stringify(answer));
      } catch (error) {
        const fault = asFault(error, "answer");
        response.statusCode = fault.httpStatus;
        response.end(JSON.stringify(toReport(fault)));
      }
    })();
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  cleanup.defer(async () => {
    server.closeAllConnections();
    await new Promise<void>((resolve) => void server.close(() => resolve()));
  });
  const credential = new StorageSharedKeyCredential(accountName, accountKey);
  await createContainer(accountUrl, container, credential, authority.caPem);
  const { port } = server.address() as AddressInfo; // A TCP server has a port.
  const owned = cleanup.move();
  return {
    ...hub,
    get onCall() {
      return calls.on;
    },
    set onCall(on) {
      calls.on = on;
    },
    get keepsOffers() {
      return calls.keepsOffers;
    },
    set keepsOffers(keeps) {
      calls.keepsOffers = keeps;
    },
    port,
    caPem: authority.caPem,
    hosts: [...names, "localhost"].map((name) => ({ name, addresses: ["127.0.0.1"] })),
    accountUrl,
    container,
    vaultId,
    vaultKey,
    createKey: (over = {}) => {
      const keyId = randomUUID();
      const secret = randomBytes(32).toString("base64url");
      const vaultResourceId = over.vaultResourceId ?? "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/v";
      secrets.set(keyId, { secret, vault: vaultResourceId, used: undefined });
      return {
        format: "watari-registration-key-1",
        vaultId,
        vaultResourceId,
        services: Object.fromEntries(privateServices.map((service) => [service, serviceHost(service)])) as RegistrationKey["services"],
        privateNames: names,
        privateRanges: ["127.0.0.0/8"],
        publicNames: [],
        hubCaPem: authority.caPem,
        keyId,
        secret,
        expiresAt: toTimestamp(systemClock.nowMs() + 3600_000),
        ...over,
        ...(over.privateNames === undefined ? { privateNames: [...names, "localhost"] } : {}),
      };
    },
    give: async (order, applianceId) => {
      const result = new Promise<ApplianceOrderResult>((resolve) => waiting.set(order.orderId, resolve));
      orders.set(order.orderId, { order, applianceId });
      return await result;
    },
    [Symbol.asyncDispose]: async () => await owned.disposeAsync(),
  };
}

/** The certificate before is refused from the first use of the next one on. */
function admit(
  socket: TLSSocket,
  certificates: ReadonlyMap<string, { current: string; next: string | undefined }>,
): { readonly applianceId: string; readonly isFirstUse: boolean } {
  const certificate = socket.getPeerX509Certificate();
  const applianceId = /CN=([^\n]*)/.exec(certificate?.subject ?? "")?.[1] ?? "";
  const digest = certificateDigestOf(certificate?.toString() ?? "");
  const known = certificates.get(applianceId);
  const isFirstUse = known !== undefined && known.next === digest;
  if (isFirstUse) Object.assign(known, { current: digest, next: undefined });
  if (known?.current !== digest) throw new Fault("Forbidden", "not the appliance's certificate");
  return { applianceId, isFirstUse };
}

async function startAzurite(
  identity: { readonly certPem: string; readonly keyPem: string },
  cleanup: AsyncDisposableStack,
): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "watari-azurite-"));
  cleanup.defer(async () => await rm(folder, { recursive: true, force: true }));
  const [cert, key] = [join(folder, "cert.pem"), join(folder, "key.pem")];
  await writeFile(cert, identity.certPem);
  await writeFile(key, identity.keyPem);
  const program = join(import.meta.dirname, "../../../node_modules/.bin/azurite-blob");
  const args = [
    "--blobPort",
    "0",
    "--location",
    folder,
    "--skipApiVersionCheck",
    "--disableTelemetry",
    "--cert",
    cert,
    "--key",
    key,
    "--silent",
  ];
  const child = spawn(process.execPath, [program, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
  cleanup.defer(async () => {
    child.kill("SIGTERM");
    await ended;
  });
  for await (const line of createInterface(child.stdout)) {
    const port = /listens on https:\/\/[^:]+:(\d+)/.exec(line)?.[1];
    if (port === undefined) continue;
    child.stdout.resume();
    return `https://localhost:${port}/${accountName}`;
  }
  throw new Error("the emulator did not say where it listens");
}

async function createContainer(
  accountUrl: string,
  container: string,
  credential: StorageSharedKeyCredential,
  caPem: string,
): Promise<void> {
  const service = new BlobServiceClient(accountUrl, credential, { tlsOptions: { ca: caPem } } as object);
  await service.createContainer(container);
}
