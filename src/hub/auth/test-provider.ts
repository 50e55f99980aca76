// For tests: a real OpenID provider on loopback behind TLS, whose people, groups and keys the test sets, and whose tokens it may spoil.

import { createPrivateKey, generateKeyPairSync, type KeyObject } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import type { IncomingMessage, ServerResponse } from "node:http";
import { decodeJwt, decodeProtectedHeader, SignJWT, UnsecuredJWT, type JWTPayload } from "jose";
import { Provider, type JWK } from "oidc-provider";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { openAuthority } from "../pki/authority.ts";

export interface TestPerson {
  readonly id: string;
  readonly name: string;
  groups: readonly string[];
}

/** Changes the ID token on its way to the hub. */
export interface Spoiling {
  readonly claims?: (claims: JWTPayload) => JWTPayload;
  readonly key?: "own" | "foreign" | "none";
}

export interface TestProvider extends AsyncDisposable {
  readonly issuer: string;
  readonly caFile: string;
  readonly clientId: string;
  readonly clientSecret: string;
  /** Who signs in next. */
  person: TestPerson;
  /** undefined: tokens as they are. */
  spoiling: Spoiling | undefined;
  /** Requests of the token endpoint are refused like by a machine that is down. */
  isDown: boolean;
  caPem(): Promise<string>;
  /** Begins to answer, for a hub that sends people back to this address. */
  serve(redirectUri: string): void;
  /** Throws the signing key away for a new one. */
  rotateKey(): void;
}

interface SigningKey {
  readonly kid: string;
  readonly key: KeyObject;
}

export async function startTestProvider(folder: string): Promise<TestProvider> {
  const authority = await openAuthority({ folder: join(folder, "provider-pki"), clock: systemClock, random: systemRandom });
  const { certificatePem, keyPem } = await authority.serverCertificate("localhost");
  const caFile = join(folder, "provider-ca.pem");
  await writeFileAtomic(caFile, authority.caPem);
  let answer: (request: IncomingMessage, response: ServerResponse) => void = (_request, response) => void response.writeHead(503).end();
  const server = createServer({ cert: certificatePem, key: keyPem }, (request, response) => {
    if (provider.isDown) response.writeHead(503).end();
    else answer(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const issuer = `https://localhost:${(server.address() as AddressInfo).port}`;
  let signing = makeKey();
  let redirectUri = "";
  const serve = (): void => {
    answer = createProvider({ issuer, redirectUri, provider, signing });
  };
  const provider: TestProvider = {
    ...{ issuer, caFile, clientId: "watari-hub", clientSecret: "a-secret-of-the-hub-at-the-provider" },
    person: { id: "anna", name: "Anna", groups: [] },
    caPem: async () => await readFile(caFile, "utf8"),
    spoiling: undefined,
    isDown: false,
    serve: (uri) => {
      redirectUri = uri;
      serve();
    },
    rotateKey: () => {
      signing = makeKey();
      serve();
    },
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return provider;
}

function makeKey(): SigningKey {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { kid: systemRandom.uuid(), key: privateKey };
}

/** People who have a session at the provider keep it when its key is rotated, because the store stays. */
const people = new Map<string, TestPerson>();

function createProvider(wanted: {
  readonly issuer: string;
  readonly redirectUri: string;
  readonly provider: TestProvider;
  readonly signing: SigningKey;
}): (request: IncomingMessage, response: ServerResponse) => void {
  const { issuer, redirectUri, provider, signing } = wanted;
  const { clientId, clientSecret } = provider;
  const jwk = { ...signing.key.export({ format: "jwk" }), kid: signing.kid, use: "sig", alg: "RS256" } as JWK;
  const oidc = new Provider(issuer, {
    clients: [
      {
        client_id: clientId,
        client_secret: clientSecret,
        redirect_uris: [redirectUri],
        grant_types: ["authorization_code", "refresh_token"],
        response_types: ["code"],
      },
    ],
    jwks: { keys: [jwk] },
    cookies: { keys: ["test"] },
    scopes: ["openid", "profile", "offline_access"],
    claims: { openid: ["sub"], profile: ["name", "preferred_username", "groups"] },
    conformIdTokenClaims: false,
    features: { devInteractions: { enabled: false } },
    interactions: { url: (_context, interaction) => `/interaction/${interaction.uid}` },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    findAccount: (_context, id) => {
      const person = people.get(id);
      if (person === undefined) return undefined;
      return {
        accountId: id,
        claims: () => ({ sub: id, name: person.name, preferred_username: `${id}@test`, groups: [...person.groups] }),
      };
    },
  });
  oidc.use(async (context, next) => {
    if (context.path.startsWith("/interaction/")) {
      people.set(provider.person.id, provider.person);
      const details = await oidc.interactionDetails(context.req, context.res);
      const result =
        details.prompt.name === "login"
          ? { login: { accountId: provider.person.id } }
          : { consent: { grantId: await grantAll(oidc, details) } };
      context.respond = false;
      await oidc.interactionFinished(context.req, context.res, result, { mergeWithLastSubmission: true });
      return;
    }
    await next();
    const { body } = context;
    if (context.path === "/token" && provider.spoiling !== undefined && isTokenAnswer(body))
      context.body = { ...body, id_token: await spoil(body.id_token, provider.spoiling, signing) };
  });
  const callback = oidc.callback();
  return (request, response) => void callback(request, response);
}

async function grantAll(oidc: Provider, details: Awaited<ReturnType<Provider["interactionDetails"]>>): Promise<string> {
  const { session, params } = details;
  const grant = new oidc.Grant({ accountId: session?.accountId ?? "", clientId: String(params["client_id"]) });
  grant.addOIDCScope(String(params["scope"]));
  return await grant.save();
}

function isTokenAnswer(body: unknown): body is { readonly id_token: string } {
  return typeof body === "object" && body !== null && "id_token" in body && typeof body.id_token === "string";
}

async function spoil(token: string, { claims = (same) => same, key = "own" }: Spoiling, signing: SigningKey): Promise<string> {
  const changed = claims(decodeJwt(token));
  if (key === "none") return new UnsecuredJWT(changed).encode();
  const header = { alg: "RS256", kid: decodeProtectedHeader(token).kid ?? "" };
  const signer = key === "own" ? signing.key : createPrivateKey(makeKey().key.export({ type: "pkcs8", format: "pem" }));
  return await new SignJWT(changed).setProtectedHeader(header).sign(signer);
}
