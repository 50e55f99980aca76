// The hub's own public names: management (the ARM API), login (tokens), download (what newcomers need before they trust the hub).

import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import type { Clock } from "../base/clock.ts";
import { Fault } from "../contract/errors.ts";
import { createDiskDoor, diskPathPrefix } from "./compute/disk-door.ts";
import { createHttpFace, createManagementApi, type AnsweredRequest, type Authenticate } from "./api/api-server.ts";
import type { AnswerWatch } from "./api/arm-call.ts";
import { createRateLimit } from "./api/rate-limits.ts";
import { parseResourceId, subscriptionType } from "./api/resource-id.ts";
import type { Caller } from "./api/resource-type.ts";
import type { PeopleParts } from "./auth/admission.ts";
import { openIdentityProvider } from "./auth/identity-provider.ts";
import { checkLocalAccount } from "./auth/local-account.ts";
import { createLoginFace, isForManagement } from "./auth/login-face.ts";
import { callbackUrl } from "./auth/person-face.ts";
import { createSignInAudit } from "./auth/sign-in-audit.ts";
import { openTokens, type Tokens } from "./auth/tokens.ts";
import { readCallView } from "./db/call-view.ts";
import { presentResource, type JsonObject, type Resource } from "./db/resources.ts";
import { registerConsolePage } from "./consoles/console-page.ts";
import type { HubConfig } from "./hub-config.ts";
import type { Platform } from "./hub-platform.ts";
import type { HubStores } from "./hub-stores.ts";
import type { Authority } from "./pki/authority.ts";
import { answerFault, type HttpHandler } from "./private-link/door.ts";
import type { PrivateLink } from "./private-link/private-link.ts";
import type { PublicNames } from "./private-link/public-door.ts";
import { tenantReads } from "./resources/providers.ts";
import type { HubServices } from "./services.ts";

export interface Faces {
  /** By public name. */
  readonly own: ReadonlyMap<string, HttpHandler>;
  /** The API as a project's private endpoint serves it: that project and nothing else. */
  projectHandlerOf(project: Resource): HttpHandler;
  /** "face METHOD /path" of every route; what lies behind /subscriptions is in the table of types. */
  readonly routes: ReadonlySet<string>;
  /** Links and documents name this port. */
  listenOn(port: number): void;
  urls(): { readonly managementUrl: string; readonly loginUrl: string };
  close(): Promise<void>;
}

const httpsPort = 443;
/** What Microsoft's SDKs ask tokens for, whatever endpoint they were given. Tokens are for this hub alone all the same. */
const azureAudienceNames: readonly string[] = ["management.azure.com", "management.core.windows.net"];

export async function openFaces(wanted: {
  readonly config: HubConfig;
  readonly services: HubServices;
  readonly stores: HubStores;
  readonly platform: Platform;
  readonly authority: Authority;
  readonly names: PublicNames;
  readonly privateLink: () => PrivateLink;
  readonly onAnswered?: ((face: string, request: AnsweredRequest) => void) | undefined;
  readonly routeOf: (path: string) => string;
  readonly onSent?: AnswerWatch["onSent"] | undefined;
}): Promise<Faces> {
  const { config, services, stores, platform, authority, names } = wanted;
  const { log, random, clock, traces } = services;
  const { tenantId, principals, credentials } = stores;
  const routes = new Set<string>();
  const counted = (face: string) => ({
    ...{ log, random, tracing: traces.isOn ? { traces, routeOf: wanted.routeOf, face } : undefined },
    onAnswered: (request: AnsweredRequest) => wanted.onAnswered?.(face, request),
    onRoute: (route: string) => void routes.add(`${face} ${route.replace(tenantId, ":tenant")}`),
  });
  let port = config.managementPort;
  const toUrl = (name: string): string => `https://${name}${port === httpsPort ? "" : `:${port}`}`;
  const { localName } = config;
  // Clients hold the issuer against the address at which they read it, so it carries the name that they use.
  const issuer = localName === undefined ? `https://${names.login}/${tenantId}/v2.0` : `${toUrl(localName)}/${tenantId}/v2.0`;
  const audience = `https://${names.management}/`;
  const tokens = await openTokens({ keyFile: join(config.stateDir, "auth", "token-key.pem"), issuer, audience, tenantId, clock, random });
  const loginUrl = (): string => toUrl(localName ?? names.login);
  const audienceNames = [names.management, ...(localName === undefined ? [] : [localName]), ...azureAudienceNames];
  const limits = {
    principal: createRateLimit({ rate: config.limits.principal, clock }),
    address: createRateLimit({ rate: config.limits.address, clock }),
  };
  const parts = await openPeopleParts(wanted, { tokens, loginUrl, audienceNames });
  const login = createLoginFace({ tenantId, audienceNames, issuer, parts, principals, credentials, clock, tokens, ...counted("login") });
  const authenticate = createAuthenticate({ tokens, clock, ...stores });
  const subscriptions = async (caller: Caller): Promise<readonly JsonObject[]> => await readableSubscriptions(wanted, caller);
  const management = createManagementApi({
    ...{ router: platform.router, authenticate, subscriptions, limits, signedReads: services.signedReads, ...counted("management") },
    ...tenantReads(platform.types, tenantId),
    ...{ health: async () => await healthOf(wanted), document: documented(platform), onSent: wanted.onSent },
  });
  const managing = withConsoles(services, management);
  const download = createHttpFace(counted("download"));
  download.get("/ca.pem", async (_request, reply) => await reply.type("application/x-pem-file").send(authority.trustPem));
  download.get("/hub.json", async (_request, reply) => await reply.send(publicFacts(stores, parts, toUrl(localName ?? names.management))));
  const all = [management, login, download];
  for (const face of all) await face.ready();
  const local = createLocalHandler(tenantId, { management: managing, login: login.routing, download: download.routing });
  return {
    own: new Map<string, HttpHandler>([
      ...(localName === undefined ? [] : [[localName, local] as const]),
      [names.management, managing],
      [names.login, (request, response) => login.routing(request, response)],
      [names.download, (request, response) => download.routing(request, response)],
    ]),
    projectHandlerOf: (project) => (request, response) => {
      if (isOf(project, request.url ?? "")) management.routing(request, response);
      else answerFault(response, otherResource(project, request.url ?? ""));
    },
    routes,
    listenOn: (bound) => void (port = bound),
    urls: () => ({ managementUrl: toUrl(localName ?? names.management), loginUrl: loginUrl() }),
    close: async () => {
      await Promise.all(all.map((face) => face.close()));
      await parts.provider?.[Symbol.asyncDispose]();
    },
  };
}

/** Contents of managed disks are no calls of the API: they come past fastify, which would hold their bodies. */
function besideDisks(services: HubServices, otherwise: HttpHandler): HttpHandler {
  const disks = createDiskDoor({ ...services, disks: services.managedDisks });
  return (request, response) => (request.url?.startsWith(diskPathPrefix) === true ? disks : otherwise)(request, response);
}

/** Consoles are the management name's alone: a project's private endpoint does not lead to them. */
function withConsoles(services: HubServices, management: FastifyInstance): HttpHandler {
  const { consoles } = services;
  registerConsolePage(management);
  const handler = besideDisks(services, (request, response) => management.routing(request, response));
  const handle = (request: IncomingMessage, response: ServerResponse): void => handler(request, response);
  return Object.assign(handle, { upgrade: consoles.upgrade.bind(consoles) });
}

async function openPeopleParts(
  { config, services, stores }: { readonly config: HubConfig; readonly services: HubServices; readonly stores: HubStores },
  meant: { readonly tokens: Tokens; readonly loginUrl: () => string; readonly audienceNames: readonly string[] },
): Promise<PeopleParts> {
  const { log, random, clock } = services;
  const { signIn, limits } = config;
  const { audit, subscriptionId } = stores;
  return {
    ...{ ...stores, config: signIn, tokens: meant.tokens, loginUrl: meant.loginUrl, clock, random, log },
    provider: signIn.provider && (await openIdentityProvider(signIn.provider, { clock })),
    isForManagement: (scope) => isForManagement(scope, meant.audienceNames),
    failures: createRateLimit({ rate: limits.failedSignIns, clock }),
    starts: createRateLimit({ rate: limits.signIns, clock }),
    audit: createSignInAudit({ audit, subscriptionId, clock, log }),
  };
}

/** What a sign-in has to know, and what the identity provider has to; none of it is a secret. */
function publicFacts({ subscriptionId }: HubStores, parts: PeopleParts, managementUrl: string): Readonly<Record<string, string>> {
  const { tenantId, loginUrl } = parts;
  return { managementUrl, loginUrl: loginUrl(), tenantId, subscriptionId, redirectUri: callbackUrl(parts) };
}

/** Made when it is first asked for: a hub starts without the descriptions of its answers. */
function documented({ types }: Platform): () => Promise<unknown> {
  let made: Promise<unknown> | undefined;
  return async () => await (made ??= import("./openapi/documents.ts").then(({ makeWholeDocument }) => makeWholeDocument(types)));
}

function createAuthenticate(
  dependencies: { readonly tokens: Tokens; readonly clock: Clock } & Pick<HubStores, "database" | "sessions" | "localAccounts">,
): Authenticate {
  const { tokens, clock, database, sessions, localAccounts: accounts } = dependencies;
  return async (authorization, keys) => {
    const [scheme = "", token = ""] = (authorization ?? "").split(" ");
    if (scheme.toLowerCase() !== "bearer" || token === "")
      throw new Fault("Unauthorized", "could not accept the call: it has no access token");
    const { principalId, name, sessionId } = tokens.check(token);
    // A token outlives its principal by up to an hour; what counts is the principal, and of a person the session.
    if (sessionId === undefined) {
      const caller = { principalId, name, groupIds: [] };
      const view = await readCallView(database.db, caller, keys);
      if (view.isKnown) return { caller, view };
      throw new Fault("Unauthorized", "could not accept the call: its caller was removed");
    }
    const session = await sessions.find(sessionId);
    const isUsable =
      session?.principalId === principalId &&
      (session.principalKind === "person" || (await checkLocalAccount({ accounts, sessions, clock })));
    if (session === undefined || !isUsable)
      throw new Fault("Unauthorized", "could not accept the call: its session has ended", { action: "sign in again: watari login" });
    const caller = { principalId, name: session.name, groupIds: session.groupIds };
    return { caller, view: await readCallView(database.db, caller, keys) };
  };
}

/** One name for the three faces, told apart by the path. */
function createLocalHandler(
  tenantId: string,
  { management, login, download }: Readonly<Record<"management" | "login" | "download", HttpHandler>>,
): HttpHandler {
  const handler = (request: IncomingMessage, response: ServerResponse): void => {
    const [, first = ""] = (request.url ?? "").split("?", 1)[0]?.toLowerCase().split("/") ?? [];
    const face = first === tenantId || first === "device" ? login : first === "ca.pem" || first === "hub.json" ? download : management;
    face(request, response);
  };
  return management.upgrade === undefined ? handler : Object.assign(handler, { upgrade: management.upgrade });
}

function isOf(project: Resource, url: string): boolean {
  const path = url.split("?", 1)[0]?.toLowerCase() ?? "";
  return path === "/health" || path === project.id.key || path.startsWith(`${project.id.key}/`);
}

function otherResource(project: Resource, url: string): Fault {
  return new Fault("Forbidden", "could not serve the call: this private endpoint leads to one project only", {
    evidence: { project: project.id.text, path: url.split("?", 1)[0] ?? "" },
    action: "call the management name for other resources",
  });
}

async function readableSubscriptions(
  { stores, platform, services }: { readonly stores: HubStores; readonly platform: Platform; readonly services: HubServices },
  caller: Caller,
): Promise<readonly JsonObject[]> {
  const id = parseResourceId(`/subscriptions/${stores.subscriptionId}`);
  try {
    await platform.authorize({ caller }, `${subscriptionType}/read`, id);
  } catch (error) {
    if (error instanceof Fault && error.code === "Forbidden") return []; // What may not be read is not listed.
    throw error;
  }
  return [presentResource(await services.resources.get(id), subscriptionType)];
}

/** Open to everyone, so it tells no names and no addresses. */
async function healthOf({
  stores,
  privateLink,
}: {
  readonly stores: HubStores;
  readonly privateLink: () => PrivateLink;
}): Promise<Readonly<Record<string, unknown>>> {
  const faults = [...privateLink().faults.values()];
  await stores.database.db.selectFrom("settings").select("name").limit(1).execute();
  return {
    status: faults.length === 0 ? "healthy" : "degraded",
    database: "healthy",
    privateNames: privateLink().served().length,
    faults: faults.map((fault) => fault.code),
  };
}
