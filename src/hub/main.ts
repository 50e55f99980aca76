// The hub's composition root: opens every part in order, and closes them in reverse.

import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { Log } from "../base/log.ts";
import type { AnswerWatch } from "./api/arm-call.ts";
import { parseResourceId } from "./api/resource-id.ts";
import { Consoles } from "./consoles/consoles.ts";
import { createSignedReads } from "./api/signed-reads.ts";
import { BlobFiles } from "./blob/blob-files.ts";
import { ManagedDisks } from "./compute/managed-disks.ts";
import { createBlobListener } from "./blob/blob-listener.ts";
import { makeTokenKey } from "./auth/tokens.ts";
import { shareFile } from "./shared-files.ts";
import { openAppliances } from "./hub-appliances.ts";
import { openFaces } from "./hub-faces.ts";
import { openStores, type HubStores, type StoreEnvironment } from "./hub-stores.ts";
import type { HubConfig } from "./hub-config.ts";
import { bootstrapOperator, keepOperator } from "./auth/operator.ts";
import { openAuthority, type Authority } from "./pki/authority.ts";
import { withGivenCertificates } from "./pki/given-certificates.ts";
import { createDocumentSigner } from "./pki/document-signer.ts";
import { createResolver, type LandingResolver } from "./dns/resolver.ts";
import { openDoor, type HttpHandler } from "./private-link/door.ts";
import { followChanges, telling } from "./private-link/other-hubs.ts";
import { openPrivateLink, type PrivateLink } from "./private-link/private-link.ts";
import { createPublicDoor, publicNamesOf } from "./private-link/public-door.ts";
import { storageAccountType, vaultType } from "./private-link/link-target.ts";
import type { Resource } from "./db/resources.ts";
import { createPlatform, type Platform } from "./hub-platform.ts";
import { createRemover } from "./resources/resource-remover.ts";
import { createVaultAccess } from "./resources/vault-access.ts";
import { openBlobAccounts } from "./resources/blob-accounts.ts";
import type { PrivateService } from "../contract/appliance-protocol.ts";
import { privateServices } from "../contract/appliance-protocol.ts";
import type { TracesConfig } from "./telemetry/traces-config.ts";
import { noTraces, type Traces } from "./telemetry/traces.ts";
import { createMetrics, createRouteNames } from "./telemetry/metrics.ts";
import { openMetricsListener } from "./telemetry/metrics-listener.ts";
import type { HubServices, OpenExtension } from "./services.ts";
import type { ResourceType } from "./api/resource-type.ts";

export interface RunningHub extends AsyncDisposable {
  readonly managementUrl: string;
  readonly loginUrl: string;
  /** Where the public names listen. */
  readonly port: number;
  /** Where metrics are served; absent without a configuration for them. */
  readonly metricsPort: number | undefined;
  readonly services: HubServices;
  readonly privateLink: PrivateLink;
  readonly types: readonly ResourceType[];
  /** As in Faces. */
  readonly routes: ReadonlySet<string>;
  readonly caPem: string;
}

export interface HubEnvironment extends StoreEnvironment {
  readonly extensions: readonly OpenExtension[];
  /** Looks at every answer, in tests and trials. */
  readonly answerWatch?: AnswerWatch | undefined;
}

/** Ready for calls on return. Starting again after any kill goes on from what is in the state folder and the database. */
export async function startHub(config: HubConfig, environment: HubEnvironment): Promise<RunningHub> {
  const { clock, random, log } = environment;
  await mkdir(config.stateDir, { recursive: true });
  await chmod(config.stateDir, 0o711); // The database's own account walks through it; every file inside is closed.
  await using opening = new AsyncDisposableStack();
  const stores = opening.use(await openStores(config, environment));
  const authority = await openSharedAuthority(stores, config, environment);
  const names = publicNamesOf(config.domain);
  const { get: privateLinkNow, set: setPrivateLink } = openLater<PrivateLink>("private link");
  const vaults = createVaultAccess({ ...stores, random, domain: config.domain, caPem: authority.trustPem, privateLink: privateLinkNow });
  const traces = config.traces === undefined ? noTraces : await openConfiguredTraces(config.traces, environment, opening);
  const { get: platformNow, set: setPlatform } = openLater<Platform>("the platform");
  const remover = createRemover(() => ({ ...stores, types: platformNow().types }), environment);
  const own = openOwn(config, { stores, authority, environment });
  const services: HubServices = { clock, random, log, stateDir: config.stateDir, ...stores, vaults, ...own, traces, remover };
  const appliances = await openAppliances({ stores, services, authority });
  opening.defer(async () => await appliances.close());
  const accounts = opening.use(openBlobAccounts({ ...stores, random, clock }));
  const blobs = await BlobFiles.open(config.blobFolder ?? join(config.stateDir, "blob"));
  const answerBlobs = createBlobListener({ files: blobs, accounts, clock, log });
  const faceOf = (target: Resource, member: string): HttpHandler => {
    if (target.id.type.toLowerCase() === vaultType.toLowerCase()) return appliances.handlerOf(target, toService(member));
    if (target.id.type.toLowerCase() === storageAccountType.toLowerCase()) return answerBlobs;
    return (request, response) => faces.projectHandlerOf(target)(request, response);
  };
  const linked = { ...config, resources: stores.resources, authority, faceOf, ...landing(config, environment), clock, log };
  const privateLink = setPrivateLink(opening.use(openPrivateLink(linked)));
  const extensions = [];
  for (const open of environment.extensions) extensions.push(opening.use(await open(services, config)));
  const wanted = {
    ...{ config, services, stores, authority, names },
    privateLink: () => telling(privateLinkNow(), stores.database.db),
    blobs,
    accountsChanged: accounts.changed,
    extraTypes: extensions.flatMap((extension) => extension.types),
    submit: extensions.find(({ submit }) => submit !== undefined)?.submit,
    answerWatch: environment.answerWatch,
  };
  const platform = setPlatform(createPlatform(wanted));
  const routeOf = createRouteNames(platform.types.types.map(({ type }) => type));
  const metrics = config.metrics && createMetrics({ database: stores.database, clock, routeOf });
  const faces = await openFaces({
    ...{ config, services, stores, platform, authority, names, privateLink: privateLinkNow, onAnswered: metrics?.answered, routeOf },
    onSent: environment.answerWatch?.onSent,
  });
  opening.defer(async () => void (await Promise.all([services.consoles[Symbol.asyncDispose](), faces.close()])));
  await saveSubscription(stores);
  await privateLink.reconcile();
  opening.use(followChanges(privateLink, stores.database.notifications, log));
  for (const extension of extensions) await extension.start();
  const port = await openPublicDoors({ config, authority, stores, own: faces.own, faceOf, log }, opening);
  faces.listenOn(port);
  const metricsPort = metrics && config.metrics && opening.use(await openMetricsListener({ ...config.metrics, metrics, log })).port;
  const { managementUrl, loginUrl } = faces.urls();
  await createOperator({ stores, environment, config, urls: { managementUrl, loginUrl }, caPem: authority.trustPem, opening });
  log.info("hub started", { managementUrl, loginUrl });
  const close = closeOnce(opening.move(), log);
  return {
    managementUrl,
    loginUrl,
    port,
    metricsPort,
    services,
    privateLink,
    types: platform.types.types,
    routes: faces.routes,
    caPem: authority.trustPem,
    [Symbol.asyncDispose]: close,
  };
}

/** What stands on the hub's own keys and files. */
function openOwn(
  { stateDir }: HubConfig,
  on: { readonly stores: HubStores; readonly authority: Authority; readonly environment: HubEnvironment },
): Pick<HubServices, "signedReads" | "consoles" | "signer" | "managedDisks"> {
  const { clock, random, log } = on.environment;
  return {
    signedReads: createSignedReads({ ...on.stores, clock, random }),
    consoles: new Consoles({ ...on.stores, clock, random, log }),
    signer: createDocumentSigner({ authority: on.authority, clock }),
    managedDisks: new ManagedDisks(join(stateDir, "managed-disks")),
  };
}

/** For parts that need each other: one is opened later than the other is given it. */
function openLater<Part>(what: string): { readonly get: () => Part; readonly set: (part: Part) => Part } {
  let opened: { readonly part: Part } | undefined;
  return {
    get: () => {
      if (opened === undefined) throw new Error(`assertion failed: ${what} is open before it is asked`);
      return opened.part;
    },
    set: (part) => {
      opened = { part };
      return part;
    },
  };
}

/** Read only where it is wanted: a hub without traces starts without the SDK. */
async function openConfiguredTraces(
  config: TracesConfig,
  { clock, random, log }: HubEnvironment,
  opening: AsyncDisposableStack,
): Promise<Traces> {
  const { openTraces } = await import("./telemetry/otlp-traces.ts");
  return opening.use(await openTraces({ config, clock, log, instanceId: random.uuid() }));
}

function closeOnce(parts: AsyncDisposableStack, log: Log): () => Promise<void> {
  const close = async (): Promise<void> => await parts.disposeAsync().finally(() => log.info("hub stopped"));
  let closed: Promise<void> | undefined;
  return () => (closed ??= close());
}

/** All hubs of a database have one authority and one key for tokens: the first hub's. */
async function openSharedAuthority(stores: HubStores, config: HubConfig, { clock, random, log }: HubEnvironment): Promise<Authority> {
  const folder = join(config.stateDir, "pki");
  const share = async (name: string): Promise<"kept" | "replaced"> =>
    await shareFile({ secrets: stores.secrets, name, path: join(config.stateDir, name) });
  const authority = await openAuthority({ folder, clock, random });
  await makeTokenKey(join(config.stateDir, "auth", "token-key.pem"));
  await share("auth/token-key.pem");
  const shared = (await share("pki/ca.pem")) === "kept" ? authority : await openAuthority({ folder, clock, random });
  return await withGivenCertificates(shared, { given: config.certificates, clock, log });
}

/** What people gave it, its tags, stays. */
async function saveSubscription({ resources, subscriptionId, tenantId }: HubStores): Promise<void> {
  const id = parseResourceId(`/subscriptions/${subscriptionId}`);
  const tags = (await resources.find(id))?.envelope["tags"];
  const envelope = { subscriptionId, tenantId, displayName: "Watari", state: "Enabled", ...(tags === undefined ? {} : { tags }) };
  await resources.save({ id, properties: {}, envelope });
}

async function createOperator(wanted: {
  readonly stores: HubStores;
  readonly environment: HubEnvironment;
  readonly config: HubConfig;
  readonly urls: { readonly managementUrl: string; readonly loginUrl: string };
  readonly caPem: string;
  readonly opening: AsyncDisposableStack;
}): Promise<void> {
  const { stores, environment, config, urls, caPem, opening } = wanted;
  if (config.operator === "none") return;
  const { tenantId, subscriptionId } = stores;
  const facts = { ...urls, tenantId, subscriptionId, caPem };
  const wish = { ...stores, ...environment, stateDir: config.stateDir };
  const file = await bootstrapOperator({ ...wish, facts });
  if (file !== undefined) environment.log.info("operator created", { file });
  opening.use(keepOperator(wish));
}

async function openPublicDoors(
  wanted: {
    readonly config: HubConfig;
    readonly authority: Authority;
    readonly stores: HubStores;
    readonly own: ReadonlyMap<string, HttpHandler>;
    readonly faceOf: (target: Resource, member: string) => HttpHandler;
    readonly log: Log;
  },
  opening: AsyncDisposableStack,
): Promise<number> {
  const { config, authority, stores, own, faceOf, log } = wanted;
  const handlerOf = createPublicDoor({ resources: stores.resources, domain: config.domain, own, faceOf });
  let port = config.managementPort;
  for (const address of config.publicAddresses) {
    const door = opening.use(await openDoor({ address, port, authority, handlerOf, asksClients: true, log }));
    port = door.port;
    log.info("public names served", { address, port });
  }
  return port;
}

/** One resolver for each network that has a resolver's address. */
function landing(config: HubConfig, environment: HubEnvironment): { readonly resolvers: ReadonlyMap<string, LandingResolver> } {
  const resolvers = new Map<string, LandingResolver>();
  for (const { virtualNetwork, dnsAddress, dnsPort } of config.networks) {
    if (dnsAddress === undefined || resolvers.has(virtualNetwork)) continue;
    const folder = join(config.stateDir, "dns");
    resolvers.set(virtualNetwork, createResolver({ folder, address: dnsAddress, port: dnsPort, ...environment }));
  }
  return { resolvers };
}

function toService(member: string): PrivateService {
  const service = privateServices.find((known) => known === member);
  if (service === undefined) throw new Error(`assertion failed: ${member} is a member of a vault`);
  return service;
}
