// The routes that a person's browser meets: authorize, the way to the provider and back, the local account, a device's code.

import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { z } from "zod";
import { asFault, Fault } from "../../contract/errors.ts";
import type { SignIn } from "../db/sign-ins.ts";
import { admitLocal, admitPerson, type PeopleParts } from "./admission.ts";
import { findClient, isLoopback } from "./clients.ts";
import { providerSecretsShape } from "./identity-provider.ts";
import { awaitsLocalSecret } from "./local-account.ts";
import { choicePage, confirmPage, deviceCodePage, formPostPage, messagePage } from "./sign-in-pages.ts";

const cookieName = "__Host-watari-browser";
const browserShape = z.string().regex(/^[\w-]{43}$/);
const text = (lengthMax: number) => z.string().max(lengthMax).optional();
const authorizeShape = z.object({
  client_id: z.uuid(),
  redirect_uri: z.string().max(2000),
  response_type: text(50),
  response_mode: text(50),
  scope: z.string().max(2000).default(""),
  state: text(4000),
  nonce: text(500),
  code_challenge: text(200),
  code_challenge_method: text(20),
  prompt: text(50),
  login_hint: text(300),
});
type Authorize = z.infer<typeof authorizeShape>;
const idShape = z.object({ id: z.uuid() });
const localShape = idShape.extend({ secret: z.string().min(1).max(200) });
const confirmShape = idShape.extend({ answer: z.enum(["yes", "no"]) });
const callbackShape = z.object({ state: z.string().min(1).max(200) });
const challengeShape = z.string().regex(/^[\w-]{43}$/);

/** Where the provider sends people back to; it must be known there. */
export function callbackUrl({ loginUrl, tenantId }: { readonly loginUrl: () => string; readonly tenantId: string }): string {
  return `${loginUrl()}/${tenantId}/signin/callback`;
}

export function registerPersonRoutes(face: FastifyInstance, parts: PeopleParts): void {
  const at = (path: string): string => `/${parts.tenantId}${path}`;
  const pages = (work: (visit: Visit) => Promise<unknown>) => async (request: FastifyRequest, reply: FastifyReply) =>
    await withPages(parts, { request, reply }, work);
  face.get(
    at("/oauth2/v2.0/authorize"),
    pages(async (visit) => await authorize(visit)),
  );
  face.get(
    at("/signin/provider"),
    pages(async (visit) => await toProvider(visit, await visit.asked(idShape, visit.request.query), {})),
  );
  face.get(
    at("/signin/callback"),
    pages(async (visit) => await comeBack(visit)),
  );
  face.post(
    at("/signin/local"),
    pages(async (visit) => await signInLocal(visit)),
  );
  face.post(
    at("/signin/confirm"),
    pages(async (visit) => await confirm(visit)),
  );
  face.get(
    at("/device"),
    pages(async (visit) => await askUserCode(visit, {})),
  );
  face.post(
    at("/device"),
    pages(async (visit) => await takeUserCode(visit)),
  );
  face.get("/device", async (_request, reply) => await reply.redirect(at("/device"), 303));
}

/** One request of a browser, with what every route needs. */
interface Visit {
  readonly parts: PeopleParts;
  readonly request: FastifyRequest;
  readonly reply: FastifyReply;
  /** Known by its cookie, or new. */
  readonly browser: string;
  readonly nonce: string;
  /** "https://login…/<tenant>" */
  readonly base: string;
  show(page: { readonly html: string; readonly policy: string }, status?: number): FastifyReply;
  /** The sign-in that this browser began and nobody is proved for yet. */
  asked(shape: z.ZodType<{ readonly id: string }>, input: unknown): Promise<SignIn>;
}

async function withPages(
  parts: PeopleParts,
  { request, reply }: { readonly request: FastifyRequest; readonly reply: FastifyReply },
  work: (visit: Visit) => Promise<unknown>,
): Promise<FastifyReply> {
  const nonce = randomText(parts, 16);
  const browser = readCookie(request.headers.cookie) ?? randomText(parts, 32);
  void reply
    .header("set-cookie", `${cookieName}=${browser}; Path=/; Secure; HttpOnly; SameSite=Lax`)
    .header("referrer-policy", "no-referrer");
  const visit: Visit = {
    ...{ parts, request, reply, browser, nonce, base: `${parts.loginUrl()}/${parts.tenantId}` },
    show: ({ html, policy }, status = 200) =>
      reply.code(status).header("content-security-policy", policy).type("text/html; charset=utf-8").send(html),
    asked: async (shape, input) => {
      const parsed = shape.safeParse(input);
      const found = parsed.success ? await parts.signIns.findAsked(parsed.data.id, browser) : undefined;
      if (found !== undefined) return found;
      throw new Fault("SignInRefused", "this sign-in is over, or it was begun in another browser");
    },
  };
  try {
    const waited = parts.failures.peek(request.ip);
    if (waited.kind === "refused") throw tooMany(waited.waitSeconds);
    await work(visit);
  } catch (error) {
    const fault = asFault(error, "sign in");
    const log = { fault: fault.code, reason: fault.message, requestId: request.id, evidence: JSON.stringify(fault.evidence) };
    if (fault.code === "Internal")
      parts.log.error("sign-in failed", { ...log, cause: String(error instanceof Error ? error.stack : error) });
    else parts.log.info("sign-in page refused", log);
    if (fault.code === "TooManyRequests") void reply.header("retry-after", String(fault.evidence["retryAfterSeconds"] ?? 1));
    const told = fault.code === "Internal" ? "the hub could not do it; its log tells why" : fault.message;
    visit.show(messagePage({ nonce, title: "Not signed in", text: `${told}. Request ${request.id}.` }), fault.httpStatus);
  }
  return reply;
}

async function authorize(visit: Visit): Promise<unknown> {
  const { parts, request, browser } = visit;
  const asked = authorizeShape.safeParse(request.query);
  const client = asked.success ? findClient(parts.config, asked.data.client_id) : undefined;
  // Nothing is sent on to an address that is not the client's own machine.
  if (!asked.success || client === undefined || !isLoopback(asked.data.redirect_uri)) {
    parts.failures.take(request.ip);
    throw new Fault(
      "InputInvalid",
      "the program that sent you here is not known to this hub, or wants the answer elsewhere than on this machine",
    );
  }
  const wrong = faultOfRequest(asked.data, parts);
  const responseMode = asked.data.response_mode === "form_post" ? "form_post" : "query";
  const back = { redirectUri: asked.data.redirect_uri, responseMode, state: asked.data.state } as const;
  if (wrong !== undefined) return answerClient(visit, back, wrong);
  const started = parts.starts.take(request.ip);
  if (started.kind === "refused") throw tooMany(started.waitSeconds);
  const signIn = await parts.signIns.ask({
    clientId: client.clientId,
    scope: asked.data.scope,
    back,
    nonce: asked.data.nonce,
    codeChallenge: asked.data.code_challenge ?? "",
    askedFrom: request.ip,
    browser,
  });
  return await choose(visit, signIn, { prompt: asked.data.prompt, loginHint: asked.data.login_hint });
}

function faultOfRequest(asked: Authorize, parts: PeopleParts): Readonly<Record<string, string>> | undefined {
  const refuse = (error: string, description: string) => ({ error, error_description: description });
  if (asked.response_type !== "code") return refuse("unsupported_response_type", "response_type must be code");
  if (asked.response_mode !== undefined && !["query", "form_post"].includes(asked.response_mode))
    return refuse("invalid_request", "response_mode must be query or form_post");
  if (asked.code_challenge_method !== "S256" || !challengeShape.safeParse(asked.code_challenge).success)
    return refuse("invalid_request", "a code_challenge by S256 is needed");
  if (!parts.isForManagement(asked.scope)) return refuse("invalid_scope", "the scope names another audience than this hub");
  return asked.prompt === "none" ? refuse("interaction_required", "the hub keeps nobody signed in in a browser") : undefined;
}

interface Hints {
  readonly prompt?: string | undefined;
  readonly loginHint?: string | undefined;
}

/** Straight to the provider where there is no other way in. */
async function choose(visit: Visit, signIn: SignIn, hints: Hints): Promise<unknown> {
  const { provider, localAccounts, clock } = visit.parts;
  if (provider !== undefined && !(await awaitsLocalSecret(localAccounts, clock))) return await toProvider(visit, signIn, hints);
  return await showChoice(visit, signIn);
}

async function showChoice(visit: Visit, signIn: SignIn, reason?: string): Promise<unknown> {
  const { parts, nonce, base } = visit;
  const hasLocalAccount = (await awaitsLocalSecret(parts.localAccounts, parts.clock)) ? "yes" : "no";
  const clientName = findClient(parts.config, signIn.clientId)?.name ?? "A program";
  const told = reason === undefined ? {} : { reason };
  const shown = choicePage({
    nonce,
    base,
    signInId: signIn.signInId,
    clientName,
    providerName: parts.provider?.name,
    hasLocalAccount,
    ...told,
  });
  return visit.show(shown, reason === undefined ? 200 : 401);
}

async function toProvider(visit: Visit, signIn: SignIn, hints: Hints): Promise<unknown> {
  const { parts, reply } = visit;
  const { provider, signIns } = parts;
  if (provider === undefined) throw new Fault("SignInRefused", "no identity provider is configured");
  const state = randomText(parts, 32);
  const prompt = hints.prompt === "login" || hints.prompt === "select_account" ? hints.prompt : undefined;
  const { url, secrets } = await provider.begin({ redirectUri: callbackUrl(parts), state, prompt, loginHint: hints.loginHint });
  await signIns.leave(signIn.signInId, { state, secrets });
  return reply.redirect(url, 303);
}

async function comeBack(visit: Visit): Promise<unknown> {
  const { parts, request, browser } = visit;
  const { provider, signIns, failures, audit } = parts;
  const asked = callbackShape.safeParse(request.query);
  const found = asked.success ? await signIns.comeBack(asked.data.state, browser) : undefined;
  if (provider === undefined || !asked.success || found === undefined) {
    failures.take(request.ip);
    await audit.refused({ requestId: request.id }, "the provider's answer belongs to no sign-in of this browser");
    throw new Fault("SignInRefused", "the answer of the identity provider belongs to no sign-in that was begun in this browser");
  }
  const url = new URL(callbackUrl(parts));
  url.search = request.url.split("?").slice(1).join("?");
  try {
    const proven = await provider.finish({ url, state: asked.data.state, secrets: providerSecretsShape.parse(found.secrets) });
    const { name } = await admitPerson(parts, proven, found.signIn, request.id);
    return await goOn(visit, found.signIn, name);
  } catch (error) {
    const fault = asFault(error, "sign in");
    if (fault.code === "SignInRefused") failures.take(request.ip);
    await audit.refused({ requestId: request.id }, fault.message);
    await signIns.refuse(found.signIn.signInId, browser);
    if (found.signIn.back === undefined || fault.code === "Internal") throw fault;
    const code = fault.code === "SignInRefused" ? "access_denied" : "server_error";
    parts.log.info("sign-in failed", { fault: fault.code, evidence: JSON.stringify(fault.evidence), requestId: request.id });
    return answerClient(visit, found.signIn.back, { error: code, error_description: `${fault.message}; request ${request.id}` });
  }
}

async function signInLocal(visit: Visit): Promise<unknown> {
  const { parts, request } = visit;
  const signIn = await visit.asked(idShape, request.body);
  const shown = localShape.safeParse(request.body);
  const { clientId } = signIn;
  const admitted = shown.success
    ? await admitLocal(parts, { secret: shown.data.secret, clientId, requestId: request.id, signIn })
    : undefined;
  if (admitted !== undefined) return await goOn(visit, signIn, admitted.name);
  parts.failures.take(request.ip);
  return await showChoice(visit, signIn, "The secret is wrong, it was used before, or the account has ended.");
}

/** A browser's own sign-in ends here; a device's waits for the person's word. */
async function goOn(visit: Visit, signIn: SignIn, personName: string): Promise<unknown> {
  const { parts, nonce, base } = visit;
  if (signIn.back !== undefined) return await sendCode(visit, signIn.signInId);
  const clientName = findClient(parts.config, signIn.clientId)?.name ?? "A program";
  return visit.show(confirmPage({ nonce, base, signInId: signIn.signInId, clientName, askedFrom: signIn.askedFrom, personName }));
}

async function sendCode(visit: Visit, signInId: string): Promise<unknown> {
  const granted = await visit.parts.signIns.grant(signInId, visit.browser);
  if (granted?.signIn.back === undefined) throw new Fault("SignInRefused", "this sign-in is over");
  return answerClient(visit, granted.signIn.back, { code: granted.code });
}

async function confirm(visit: Visit): Promise<unknown> {
  const { parts, request, browser, nonce } = visit;
  const said = confirmShape.safeParse(request.body);
  if (!said.success) throw new Fault("InputInvalid", "the page was not sent whole");
  if (said.data.answer === "no") {
    const refused = await parts.signIns.refuse(said.data.id, browser);
    if (refused?.sessionId !== undefined) await parts.sessions.end(refused.sessionId, "the person refused the device");
    return visit.show(messagePage({ nonce, title: "Refused", text: "The terminal was not signed in. You may close this page." }));
  }
  const granted = await parts.signIns.grant(said.data.id, browser);
  if (granted === undefined) throw new Fault("SignInRefused", "this sign-in is over");
  return visit.show(
    messagePage({ nonce, title: "Signed in", text: "Go back to your terminal; it goes on by itself. You may close this page." }),
  );
}

async function askUserCode(visit: Visit, { reason }: { readonly reason?: string }): Promise<unknown> {
  const given = z.object({ user_code: z.string().max(20).default("") }).safeParse(visit.request.query);
  const userCode = given.success ? given.data.user_code : "";
  const told = reason === undefined ? {} : { reason };
  return visit.show(deviceCodePage({ nonce: visit.nonce, base: visit.base, userCode, ...told }), reason === undefined ? 200 : 400);
}

async function takeUserCode(visit: Visit): Promise<unknown> {
  const { parts, request, browser } = visit;
  const typed = z.object({ user_code: z.string().min(1).max(20) }).safeParse(request.body);
  const signIn = typed.success ? await parts.signIns.claimDevice(typed.data.user_code, browser) : undefined;
  if (signIn !== undefined) return await choose(visit, signIn, {});
  parts.failures.take(request.ip);
  return await askUserCode(visit, { reason: "No terminal waits for this code. It is shown there, and lives for fifteen minutes." });
}

function answerClient(visit: Visit, back: NonNullable<SignIn["back"]>, answer: Readonly<Record<string, string>>): unknown {
  const fields = { ...answer, ...(back.state === undefined ? {} : { state: back.state }) };
  if (back.responseMode === "form_post") return visit.show(formPostPage({ nonce: visit.nonce, action: back.redirectUri, fields }));
  const url = new URL(back.redirectUri);
  for (const [name, value] of Object.entries(fields)) url.searchParams.set(name, value);
  return visit.reply.redirect(url.href, 303);
}

function readCookie(header: string | undefined): string | undefined {
  const pairs = (header ?? "").split(";").map((pair) => pair.trim());
  const value = pairs.find((pair) => pair.startsWith(`${cookieName}=`))?.slice(cookieName.length + 1);
  return browserShape.safeParse(value).data;
}

function tooMany(waitSeconds: number): Fault {
  return new Fault("TooManyRequests", `too many sign-ins came from this address; try again in ${waitSeconds} s`, {
    evidence: { retryAfterSeconds: waitSeconds },
  });
}

function randomText({ random }: PeopleParts, byteCount: number): string {
  return Buffer.from(random.bytes(byteCount)).toString("base64url");
}
