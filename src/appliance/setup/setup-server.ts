// The set-up page's server: HTTPS on its own port; files for the browser, and one POST route for each action of a person who is signed in.

import type { Server } from "node:https";
import type { AddressInfo } from "node:net";
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import { systemClock, type Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { systemRandom, type Random } from "../../base/random.ts";
import { setupRoutes, type SetupRoute } from "../../contract/appliance-setup.ts";
import { asFault, Fault, toReport } from "../../contract/errors.ts";
import type { ApplianceHost } from "../appliance-host.ts";
import type { ApplianceConfig } from "../config/config.ts";
import { parseBody } from "../control/json-https.ts";
import { componentsOf } from "./components.ts";
import { createSetupActions, requireOpen } from "./setup-actions.ts";
import type { SetupFiles } from "./setup-files.ts";
import { openSetupIdentity } from "./setup-identity.ts";
import { commonHeaders, pageHeaders, pageText } from "./setup-page.ts";
import { SetupPasswordGate, setupPasswordMark } from "./setup-password.ts";
import { isSameToken, SetupSessions } from "./setup-sessions.ts";

const bodyBytesMax = 512 << 10;
const connectionsMax = 64;
/** Bound to this host and to encrypted connections by its name (RFC 6265bis, cookie name prefixes). */
const cookieName = "__Host-watari-setup";
const tokenHeader = "x-watari-token";

export interface SetupServerOptions {
  readonly log: Log;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly setupFiles: () => Promise<SetupFiles>;
}

export interface SetupServer extends AsyncDisposable {
  readonly listening: readonly { readonly address: string; readonly port: number }[];
  /** Also on the addresses that are new in these settings; those that are gone end with the program, because a browser may be on them. */
  listenOn(config: ApplianceConfig): Promise<void>;
}

/** Listens nowhere until it is told to. */
export async function startSetupServer(host: ApplianceHost, options: SetupServerOptions): Promise<SetupServer> {
  const { clock = systemClock } = options;
  const answers = createAnswers(host, options);
  const open = new Map<string, { readonly app: SecureApp; readonly port: number }>();
  return await Promise.resolve({
    get listening() {
      return [...open].map(([address, { port }]) => ({ address, port }));
    },
    listenOn: async (config: ApplianceConfig) => {
      const { certPem: cert, keyPem: key } = await openSetupIdentity({
        facts: host.current.facts,
        authority: host.current.authority,
        config,
        clock,
      });
      for (const { app } of open.values()) app.server.setSecureContext({ cert, key, minVersion: "TLSv1.3" });
      for (const address of config.listenAddresses) {
        if (open.has(address)) continue;
        const app = createApp({ cert, key }, answers, options);
        await app.listen({ host: address, port: config.setupPort ?? 0 });
        // A TCP server has a port.
        open.set(address, { app, port: (app.server.address() as AddressInfo).port });
      }
      options.log.info("set-up page served", { addresses: [...open.keys()], port: config.setupPort });
    },
    [Symbol.asyncDispose]: async () => {
      for (const { app } of open.values()) await app.close();
    },
  });
}

type SecureApp = FastifyInstance<Server>;
type Answers = Readonly<Record<SetupRoute, (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>>>;

function createApp(
  identity: { readonly cert: string; readonly key: string },
  answers: Answers,
  { log, random = systemRandom, setupFiles }: SetupServerOptions,
): SecureApp {
  const app: SecureApp = Fastify({
    https: { ...identity, minVersion: "TLSv1.3" },
    bodyLimit: bodyBytesMax,
    requestTimeout: 600_000,
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 100 },
  });
  app.server.maxConnections = connectionsMax;
  app.server.headersTimeout = 15_000;
  app.addHook("onRequest", async (_request, reply) => void reply.headers(commonHeaders));
  app.setErrorHandler(async (error, request, reply) => await sendFault(error, request, reply, log));
  app.setNotFoundHandler(async (_request, reply) => await reply.code(404).send(toReport(new Fault("NotFound", "there is no such page"))));
  app.get("/", async (_request, reply) => {
    const nonce = Buffer.from(random.bytes(16)).toString("base64url");
    return await reply.headers(pageHeaders(nonce)).send(pageText((await setupFiles()).entry, nonce));
  });
  app.get<{ Params: { name: string } }>("/:name", async ({ params }, reply) => {
    const bytes = (await setupFiles()).scripts.get(params.name);
    if (bytes === undefined) throw new Fault("NotFound", "there is no such file");
    // Named after their content.
    const headers = { "content-type": "text/javascript; charset=utf-8", "cache-control": "public, max-age=31536000, immutable" };
    return await reply.headers(headers).send(Buffer.from(bytes));
  });
  for (const [name, answer] of Object.entries(answers)) app.post(`/api/${name}`, answer);
  return app;
}

async function sendFault(error: unknown, request: FastifyRequest, reply: FastifyReply, log: Log): Promise<FastifyReply> {
  const status = error instanceof Error && "statusCode" in error ? error.statusCode : undefined;
  const fault =
    status === 413
      ? new Fault("BodyTooLarge", "the request is too large", { evidence: { bodyBytesMax } })
      : typeof status === "number" && status < 500
        ? new Fault("InputInvalid", "could not read the request")
        : asFault(error, "answer the set-up page");
  log[fault.code === "Internal" ? "error" : "warn"]("set-up call refused", {
    route: request.url.slice(0, 80),
    fault: fault.code,
    reason: fault.message,
  });
  const { retryAfterSeconds } = fault.evidence;
  if (typeof retryAfterSeconds === "number") reply.header("retry-after", String(retryAfterSeconds));
  return await reply.code(fault.httpStatus).send(toReport(fault));
}

function createAnswers(host: ApplianceHost, { clock = systemClock, random = systemRandom }: SetupServerOptions): Answers {
  const gate = new SetupPasswordGate(clock);
  const sessions = new SetupSessions({ clock, random });
  const actions = createSetupActions(host, clock);
  const sessionOf = (request: FastifyRequest): ReturnType<SetupSessions["find"]> =>
    sessions.find(cookieOf(request), setupPasswordMark(host.current.facts));
  /** A session, its token in the header, and a page of this very server: the cookie alone moves nothing. */
  const requireSession = (request: FastifyRequest): void => {
    const session = sessionOf(request);
    if (session === undefined)
      throw new Fault("Unauthorized", "the session has ended", { action: "sign in again; what was entered is kept" });
    if (isSameToken(request.headers[tokenHeader], session.csrfToken)) return;
    throw new Fault("Forbidden", "refused a call that does not come from this page", {
      causes: ["another page sent it"],
      action: "load the page again",
    });
  };
  const act = (name: Exclude<SetupRoute, "session" | "signIn" | "signOut" | "components">): Answers[SetupRoute] => {
    const run = actions[name] as (body: unknown, signal: AbortSignal) => Promise<unknown>; // The shape of the same name proves the body.
    return async (request, reply) => {
      requireSession(request);
      const body = bodyOf(name, request);
      requireOpen(host, name);
      return await run(body, goneSignal(reply));
    };
  };
  const rest = Object.keys(setupRoutes).filter((name) => !["session", "signIn", "signOut", "components"].includes(name));
  return {
    ...(Object.fromEntries(rest.map((name) => [name, act(name as Parameters<typeof act>[0])])) as Answers), // The others; these four follow.
    session: async (request) => {
      bodyOf("session", request);
      const session = sessionOf(request);
      return await Promise.resolve(session === undefined ? { isSignedIn: false } : { isSignedIn: true, token: session.csrfToken });
    },
    signIn: async (request, reply) => {
      const { password } = bodyOf("signIn", request);
      await gate.check(host.current.facts, request.ip, password);
      const { cookie, csrfToken } = sessions.begin(setupPasswordMark(host.current.facts) ?? "");
      reply.header("set-cookie", `${cookieName}=${cookie}; Path=/; Secure; HttpOnly; SameSite=Strict`);
      return { token: csrfToken };
    },
    signOut: async (request, reply) => {
      requireSession(request);
      sessions.end(cookieOf(request));
      reply.header("set-cookie", `${cookieName}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0`);
      return await Promise.resolve({});
    },
    components: async (request) => {
      requireSession(request);
      bodyOf("components", request);
      return await componentsOf(host.current, clock);
    },
  };
}

/** Only JSON of this server's own page: a form of another site can send neither the type nor the origin. */
function bodyOf<Name extends SetupRoute>(name: Name, request: FastifyRequest): ReturnType<(typeof setupRoutes)[Name]["request"]["parse"]> {
  const { origin, host } = request.headers;
  if (origin !== undefined && origin !== `https://${host ?? ""}`) {
    throw new Fault("Forbidden", "refused a call of another site's page", {
      evidence: { origin: origin.slice(0, 200) },
      action: "load the page again",
    });
  }
  if (!(request.headers["content-type"] ?? "").startsWith("application/json"))
    throw new Fault("MediaTypeUnsupported", "the request is not JSON");
  return parseBody(setupRoutes[name].request as never, request.body);
}

function cookieOf({ headers }: FastifyRequest): string | undefined {
  const found = (headers.cookie ?? "").split(/;\s*/).find((pair) => pair.startsWith(`${cookieName}=`));
  return found?.slice(cookieName.length + 1);
}

/** Aborted when the browser is gone; a change of settings is not cut by it. */
function goneSignal(reply: FastifyReply): AbortSignal {
  const gone = new AbortController();
  reply.raw.once("close", () => gone.abort());
  return gone.signal;
}
