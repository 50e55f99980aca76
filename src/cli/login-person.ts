// How a person signs in from a terminal: by the browser of this machine, by a code in any browser, or by the local account's secret.

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { spawn } from "node:child_process";
import { z } from "zod";
import type { Clock } from "../base/clock.ts";
import type { Random } from "../base/random.ts";
import { Fault } from "../contract/errors.ts";
import { commandLineClientId, localAccountGrant } from "../contract/sign-in.ts";
import { askToken, scopeOf, tokenUrl, toRefusal, type GivenToken } from "./access-token.ts";
import type { HubConnection } from "./hub-connection.ts";
import { say } from "./output.ts";
import type { HubFacts } from "./profile.ts";

interface Way {
  readonly profile: HubFacts;
  readonly connection: HubConnection;
  readonly clock: Clock;
  readonly random: Random;
}

const waitMsMax = 15 * 60_000;
const deviceShape = z.object({
  device_code: z.string(),
  expires_in: z.number(),
  interval: z.number(),
  message: z.string(),
  verification_uri_complete: z.string().optional(),
});
const pendingShape = z.object({ error: z.enum(["authorization_pending", "slow_down"]) });
const slowDownSeconds = 5;

function wanted({ profile }: Way): string {
  return `${scopeOf(profile)} openid profile offline_access`;
}

/** Authorization code with PKCE; the answer comes to a listener of this process (RFC 8252). */
export async function signInByBrowser(way: Way): Promise<GivenToken> {
  const { profile, clock, random } = way;
  const [verifier, state, nonce] = [randomText(random), randomText(random), randomText(random)];
  await using listener = await listenForAnswer(state);
  const url = tokenUrl(profile, "authorize");
  url.search = new URLSearchParams({
    ...{ client_id: commandLineClientId, redirect_uri: listener.redirectUri, response_type: "code", scope: wanted(way), state, nonce },
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
  }).toString();
  openBrowser(url.href);
  say(`Sign in with the browser that opens, or open this address in one on this machine:\n  ${url.href}`);
  say("No browser here? End this with Ctrl-C and call: watari login --device");
  const waiting = new AbortController();
  const timeout = clock.sleep(waitMsMax, waiting.signal).then(() => {
    throw new Fault("SignInRefused", "could not sign in: nobody did within fifteen minutes");
  });
  try {
    const code = await Promise.race([listener.answer, timeout]);
    const form = { grant_type: "authorization_code", client_id: commandLineClientId, code, code_verifier: verifier };
    return await askToken(way, { ...form, redirect_uri: listener.redirectUri });
  } finally {
    waiting.abort();
    await timeout.catch(() => undefined); // Either aborted just now, or thrown above already.
  }
}

/** RFC 8628: the person signs in on any machine that has a browser. */
export async function signInByDevice(way: Way): Promise<GivenToken> {
  const { profile, connection, clock } = way;
  const response = await connection.post(tokenUrl(profile, "devicecode"), { client_id: commandLineClientId, scope: wanted(way) });
  const device = deviceShape.safeParse(response.body);
  if (!device.success) throw toRefusal(response, profile);
  const { device_code: deviceCode, expires_in: expiresIn, message, verification_uri_complete: complete } = device.data;
  say(message);
  if (complete !== undefined) say(`Or open this address, with the code in it:\n  ${complete}`);
  const endMs = clock.monotonicMs() + expiresIn * 1000;
  let waitSeconds = device.data.interval;
  const form = { grant_type: "urn:ietf:params:oauth:grant-type:device_code", client_id: commandLineClientId, device_code: deviceCode };
  while (clock.monotonicMs() < endMs) {
    await clock.sleep(waitSeconds * 1000);
    const answer = await connection.post(tokenUrl(profile), form);
    const pending = pendingShape.safeParse(answer.body);
    if (pending.success) waitSeconds += pending.data.error === "slow_down" ? slowDownSeconds : 0;
    else if (answer.status < 400) return asGiven(answer.body);
    else throw toRefusal(answer, profile);
  }
  throw new Fault("SignInRefused", "could not sign in: nobody entered the code in time");
}

export async function signInLocally(way: Way, secret: string): Promise<GivenToken> {
  return await askToken(way, { grant_type: localAccountGrant, client_id: commandLineClientId, secret, scope: wanted(way) });
}

function asGiven(body: unknown): GivenToken {
  return z.object({ access_token: z.string(), expires_in: z.coerce.number(), refresh_token: z.string().optional() }).parse(body);
}

interface Listener extends AsyncDisposable {
  readonly redirectUri: string;
  readonly answer: Promise<string>;
}

async function listenForAnswer(state: string): Promise<Listener> {
  const { promise: answer, resolve, reject } = Promise.withResolvers<string>();
  answer.catch(() => undefined); // It is awaited only after the person was told what to do.
  const server = createServer((request, response) => {
    const read = readAnswer(request, state);
    show(response, read.kind);
    if (read.kind === "code") resolve(read.code);
    if (read.kind === "error") reject(new Fault("SignInRefused", `could not sign in: ${read.reason}`));
  });
  await new Promise<void>((done, failed) => {
    server.once("error", failed);
    server.listen(0, "127.0.0.1", () => done());
  });
  const bound = server.address();
  const port = typeof bound === "object" && bound !== null ? bound.port : 0;
  return {
    redirectUri: `http://127.0.0.1:${port}/`,
    answer,
    [Symbol.asyncDispose]: async () => {
      server.closeIdleConnections();
      await new Promise<void>((done) => server.close(() => done()));
    },
  };
}

type Answer =
  | { readonly kind: "none" }
  | { readonly kind: "code"; readonly code: string }
  | { readonly kind: "error"; readonly reason: string };

/** Anything without this sign-in's state is somebody else's. */
function readAnswer(request: IncomingMessage, state: string): Answer {
  const query = new URL(request.url ?? "/", "http://127.0.0.1").searchParams;
  if (query.get("state") !== state) return { kind: "none" };
  const code = query.get("code");
  if (code !== null) return { kind: "code", code };
  return { kind: "error", reason: (query.get("error_description") ?? query.get("error") ?? "the hub gave no code").slice(0, 500) };
}

function show(response: ServerResponse, kind: Answer["kind"]): void {
  const text = {
    none: "Nothing is waiting here.",
    code: "Signed in. Go back to your terminal.",
    error: "Not signed in. Your terminal says why.",
  }[kind];
  const headers = { "content-type": "text/plain; charset=utf-8", "content-security-policy": "default-src 'none'", connection: "close" };
  response.writeHead(kind === "none" ? 404 : 200, headers).end(`${text}\n`);
}

/** Where there is a desktop; the address is printed all the same. */
function openBrowser(url: string): void {
  const { DISPLAY, WAYLAND_DISPLAY } = process.env;
  const opener = process.platform === "darwin" ? "open" : "xdg-open";
  if (process.platform !== "darwin" && DISPLAY === undefined && WAYLAND_DISPLAY === undefined) return;
  const child = spawn(opener, [url], { stdio: "ignore", detached: true });
  child.once("error", () => undefined); // The person opens the printed address.
  child.unref();
}

function randomText(random: Random): string {
  return Buffer.from(random.bytes(32)).toString("base64url");
}
