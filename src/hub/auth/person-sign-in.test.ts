// People sign in through a real OpenID provider: what they get, what it is worth, and everything that is refused.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { createLocalJWKSet, decodeJwt, jwtVerify, type JSONWebKeySet } from "jose";
import { z } from "zod";
import { systemClock } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { pageOfAudit } from "../db/audit-entries.ts";
import { callTarget, codeOf, testDomain } from "../test-client.ts";
import type { Spoiling } from "./test-provider.ts";
import { clientId, codeForm, codeOfAnswer, errorOf, openSignInTrial, redirectUri, type SignInTrial } from "./test-sign-in.ts";

const reader = "acdd72a7-3385-48ef-bd42-f606fba81ae7";
const deviceShape = z.object({
  device_code: z.string(),
  user_code: z.string(),
  verification_uri: z.string(),
  interval: z.number(),
  message: z.string(),
});
const renewedShape = z.object({ access_token: z.string(), refresh_token: z.string() });

let folder: string;
let trial: SignInTrial;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "watari-people-"));
  const plenty = { perSecond: 1000, burst: 1000 };
  trial = await openSignInTrial(folder, { limits: { failedSignIns: plenty, signIns: plenty } });
});
after(async () => {
  await trial[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function makeReaders(claimValue: string): Promise<string> {
  const { hub } = trial;
  const subscription = `/subscriptions/${hub.operator.subscriptionId}`;
  const groupId = systemRandom.uuid();
  const group = `${subscription}/providers/Watari.Identity/groups/${groupId}`;
  assert.equal((await hub.arm("PUT", group, { properties: { displayName: claimValue, claimValue } })).status, 201);
  const properties = { principalId: groupId, roleDefinitionId: `/providers/Microsoft.Authorization/roleDefinitions/${reader}` };
  const path = `${subscription}/providers/Microsoft.Authorization/roleAssignments/${systemRandom.uuid()}`;
  assert.equal((await hub.arm("PUT", path, { properties })).status, 201);
  return subscription;
}

async function auditOutcomes(): Promise<readonly string[]> {
  const rows = await pageOfAudit(trial.hub.hub.services.database.db, 0, 10_000);
  return rows.map((row) => z.looseObject({ outcome: z.string().default("") }).parse(JSON.parse(row.entry)).outcome);
}

test("a person signs in by a browser, has the rights of the groups that the provider names, and loses them at the next refresh", async () => {
  const subscription = await makeReaders("movers");
  trial.provider.person = { id: "anna", name: "Anna Example", groups: ["movers", "others"] };
  const given = await trial.signIn();
  const { tenantId } = trial.hub.operator;
  const keys = await callTarget(trial.hub.target(`login.${testDomain}`), { method: "GET", path: `/${tenantId}/discovery/v2.0/keys` });
  const { payload } = await jwtVerify(given.id_token, createLocalJWKSet(keys.body as JSONWebKeySet), { audience: clientId });
  assert.deepEqual([payload["name"], payload["preferred_username"], payload["nonce"]], ["Anna Example", "anna@test", "client-nonce"]);
  assert.ok(given.expires_in <= 900, "a person's token is short");
  const read = async (token: string): Promise<number> => (await trial.arm(token, "GET", subscription)).status;
  assert.equal(await read(given.access_token), 200);
  assert.equal((await trial.arm(given.access_token, "PUT", `${subscription}/resourceGroups/x`, { location: "y" })).status, 403);
  assert.equal(await read(given.id_token), 401, "an ID token opens nothing");

  trial.provider.person.groups = ["others"];
  assert.equal(await read(given.access_token), 200, "until the next refresh");
  const renew = async (token: string) => await trial.token({ grant_type: "refresh_token", refresh_token: token, scope: trial.audience });
  const renewed = await renew(given.refresh_token);
  const next = renewedShape.parse(renewed.body);
  assert.notEqual(next.refresh_token, given.refresh_token);
  assert.equal(await read(next.access_token), 403);
  assert.equal(await read(given.access_token), 403, "older tokens of the session too");

  assert.equal(errorOf(await renew(given.refresh_token)), "invalid_grant", "a refresh token works once");
  assert.equal(errorOf(await renew(next.refresh_token)), "invalid_grant", "and showing it twice ends the session");
  assert.equal(await read(next.access_token), 401);
  const outcomes = await auditOutcomes();
  assert.ok(outcomes.some((outcome) => outcome.startsWith("signed in by browser")));
  assert.ok(outcomes.some((outcome) => outcome.includes("refresh token was shown twice")));
});

test("a person who signs in without a group has no rights, is one person each time, and can be disabled", async () => {
  trial.provider.person = { id: "ben", name: "Ben", groups: [] };
  const [first, second] = [await trial.signIn(), await trial.signIn()];
  const principalId = z.string().parse(decodeJwt(first.access_token)["oid"]);
  assert.equal(decodeJwt(second.access_token)["oid"], principalId);
  const subscription = `/subscriptions/${trial.hub.operator.subscriptionId}`;
  assert.equal((await trial.arm(first.access_token, "GET", subscription)).status, 403);
  const path = `${subscription}/providers/Watari.Identity/people/${principalId}`;
  const shown = await trial.hub.arm("GET", path);
  const body = z.object({ properties: z.looseObject({ displayName: z.string(), sessionCount: z.number(), isEnabled: z.boolean() }) });
  const { displayName, sessionCount, isEnabled } = body.parse(shown.body).properties;
  assert.deepEqual([displayName, sessionCount, isEnabled], ["Ben", 2, true]);
  assert.equal((await trial.hub.arm("POST", `${path}/disable`, {})).status, 204);
  assert.equal((await trial.arm(first.access_token, "GET", subscription)).status, 401, "at once");
  assert.equal(errorOf(await trial.token({ grant_type: "refresh_token", refresh_token: second.refresh_token })), "invalid_grant");
  await assert.rejects(trial.signIn(), /no code at .*access_denied/);
  assert.equal((await trial.hub.arm("POST", `${path}/enable`, {})).status, 204);
  const again = await trial.signIn();
  assert.equal((await trial.hub.arm("POST", `${path}/signOut`, {})).status, 200);
  assert.equal((await trial.arm(again.access_token, "GET", subscription)).status, 401);
  const third = await trial.signIn();
  assert.equal((await trial.hub.arm("DELETE", path)).status, 200);
  assert.equal((await trial.arm(third.access_token, "GET", subscription)).status, 401);
  assert.notEqual(decodeJwt((await trial.signIn()).access_token)["oid"], principalId, "who comes back is a new person without rights");
});

test("what the provider did not sign for this hub, this sign-in and this hour proves nobody", async () => {
  trial.provider.person = { id: "carl", name: "Carl", groups: ["movers"] };
  const now = Math.floor(systemClock.nowMs() / 1000);
  const spoilings: readonly (readonly [string, Spoiling])[] = [
    ["no algorithm", { key: "none" }],
    ["a foreign key", { key: "foreign" }],
    ["another audience", { claims: (claims) => ({ ...claims, aud: "another-client" }) }],
    ["another issuer", { claims: (claims) => ({ ...claims, iss: "https://localhost:1" }) }],
    ["another nonce", { claims: (claims) => ({ ...claims, nonce: "of another sign-in" }) }],
    ["no nonce", { claims: ({ nonce: _nonce, ...claims }) => claims }],
    ["expired", { claims: (claims) => ({ ...claims, iat: now - 900, exp: now - 300 }) }],
    ["of the future", { claims: (claims) => ({ ...claims, nbf: now + 600 }) }],
    ["groups elsewhere", { claims: (claims) => ({ ...claims, _claim_names: { groups: "src1" } }) }],
    ["groups without end", { claims: (claims) => ({ ...claims, groups: Array.from({ length: 1001 }, (_none, index) => `g${index}`) }) }],
  ];
  for (const [what, spoiling] of spoilings) {
    trial.provider.spoiling = spoiling;
    const { url } = trial.ask();
    const end = await trial.openBrowser().open(url);
    assert.equal(end.url.searchParams.get("error"), "access_denied", what);
    assert.equal(end.url.searchParams.get("code"), null, what);
  }
  trial.provider.spoiling = { claims: (claims) => ({ ...claims, exp: now - 10 }) };
  await trial.signIn(); // Within the clocks' tolerance.
  trial.provider.spoiling = undefined;
  assert.ok((await auditOutcomes()).some((outcome) => outcome.includes("does not prove the person")));
});

test("a key that the provider rotated counts at the next sign-in; a provider that is down refuses nobody for good", async () => {
  trial.provider.person = { id: "dora", name: "Dora", groups: [] };
  await trial.signIn();
  trial.provider.rotateKey();
  const given = await trial.signIn();
  trial.provider.isDown = true;
  const down = await trial.token({ grant_type: "refresh_token", refresh_token: given.refresh_token });
  assert.deepEqual([down.status, errorOf(down)], [503, "temporarily_unavailable"]);
  trial.provider.isDown = false;
  const back = await trial.token({ grant_type: "refresh_token", refresh_token: given.refresh_token });
  assert.equal(back.status, 200, "the token was not used up");
});

test("the provider's answer counts once, with its own state, in the browser that began", async () => {
  trial.provider.person = { id: "emil", name: "Emil", groups: [] };
  const browser = trial.openBrowser();
  const { loginUrl } = trial.hub.hub;
  let at = trial.ask().url;
  while (!at.startsWith(`${loginUrl}/${trial.hub.operator.tenantId}/signin/callback`)) at = (await browser.step(at)).next ?? "";
  const other = trial.openBrowser();
  assert.equal((await other.open(at)).status, 401, "another browser");
  const forged = new URL(at);
  forged.searchParams.set("state", Buffer.from(systemRandom.bytes(32)).toString("base64url"));
  assert.equal((await browser.open(forged.href)).status, 401, "another state");
  const first = await browser.step(at);
  assert.ok(first.next?.startsWith(redirectUri));
  assert.equal((await browser.open(at)).status, 401, "a second time");
});

test("a code works once, for its client and address and with its verifier; a second time ends the session", async () => {
  const { url, verifier, state } = trial.ask();
  const end = await trial.openBrowser().open(url);
  assert.equal(end.url.searchParams.get("state"), state);
  const code = codeOfAnswer(end);
  for (const wrong of [
    { code_verifier: "x".repeat(43) },
    { redirect_uri: "http://127.0.0.1:1/" },
    { client_id: "1950a258-227b-4e31-a9cf-717495945fc2" },
    { code: `${code.slice(0, -1)}_` },
  ])
    assert.equal(errorOf(await trial.token({ ...codeForm(code, verifier), ...wrong })), "invalid_grant", JSON.stringify(wrong));
  const given = renewedShape.parse((await trial.token(codeForm(code, verifier))).body);
  const subscriptions = async (): Promise<number> => (await trial.arm(given.access_token, "GET", "/subscriptions")).status;
  assert.equal(await subscriptions(), 200);
  assert.equal(errorOf(await trial.token(codeForm(code, verifier))), "invalid_grant");
  assert.equal(await subscriptions(), 401);
  const renewed = await trial.token({ grant_type: "refresh_token", refresh_token: given.refresh_token });
  assert.equal(errorOf(renewed), "invalid_grant");
});

test("nothing is sent to an address that is not the client's own machine, and no weaker way is taken", async () => {
  for (const changes of [
    { redirect_uri: "https://evil.test/" },
    { redirect_uri: "http://evil.test/" },
    { redirect_uri: "http://127.0.0.1.evil.test/" },
    { redirect_uri: "http://user@127.0.0.1:1/" },
    { redirect_uri: "javascript:alert(1)" },
    { client_id: systemRandom.uuid() },
  ]) {
    const seen = await trial.openBrowser().open(trial.ask(changes).url);
    assert.deepEqual([seen.status, seen.url.pathname.endsWith("/authorize")], [400, true], JSON.stringify(changes));
    assert.match(String(seen.headers["content-security-policy"]), /default-src 'none'.*frame-ancestors 'none'/);
  }
  for (const [changes, error] of [
    [{ response_type: "token" }, "unsupported_response_type"],
    [{ code_challenge_method: "plain" }, "invalid_request"],
    [{ code_challenge: "" }, "invalid_request"],
    [{ scope: "https://graph.microsoft.com/.default" }, "invalid_scope"],
    [{ prompt: "none" }, "interaction_required"],
  ] as const)
    assert.equal((await trial.openBrowser().open(trial.ask(changes).url)).url.searchParams.get("error"), error, JSON.stringify(changes));
});

test("a device gets its tokens when a person types its code and agrees, and nothing when the person refuses", async () => {
  trial.provider.person = { id: "frida", name: "Frida", groups: ["movers"] };
  const begin = async () =>
    deviceShape.parse((await trial.post("/oauth2/v2.0/devicecode", { client_id: clientId, scope: trial.audience })).body);
  const poll = async (deviceCode: string) =>
    await trial.token({ grant_type: "urn:ietf:params:oauth:grant-type:device_code", device_code: deviceCode });
  const device = await begin();
  assert.ok(device.message.includes(device.user_code) && device.message.includes(device.verification_uri));
  assert.equal(errorOf(await poll(device.device_code)), "authorization_pending");
  assert.equal(errorOf(await poll(device.device_code)), "slow_down");
  const browser = trial.openBrowser();
  const wrong = await browser.submit(await browser.open(trial.deviceUrl()), { user_code: "BBBB-BBBB" });
  assert.equal(wrong.status, 400);
  const confirm = await browser.submit(wrong, { user_code: device.user_code.toLowerCase() });
  assert.match(confirm.text, /127\.0\.0\.1/);
  assert.match(confirm.text, /Frida/);
  const thief = trial.openBrowser();
  assert.equal(
    (await thief.submit(await thief.open(trial.deviceUrl()), { user_code: device.user_code })).status,
    400,
    "bound to the first browser",
  );
  assert.notEqual((await poll(device.device_code)).status, 200, "not before the person agreed");
  assert.equal((await thief.submit(confirm, { answer: "yes" })).status, 401);
  assert.match((await browser.submit(confirm, { answer: "yes" })).text, /Signed in/);
  const given = await poll(device.device_code);
  assert.equal(given.status, 200);
  const { access_token: accessToken } = renewedShape.parse(given.body);
  assert.equal((await trial.arm(accessToken, "GET", `/subscriptions/${trial.hub.operator.subscriptionId}`)).status, 200);
  assert.equal(errorOf(await poll(device.device_code)), "expired_token");
  assert.equal((await trial.arm(accessToken, "GET", "/subscriptions")).status, 401, "a device code shown twice ends the session");

  const refused = await begin();
  const page = await browser.submit(await browser.open(trial.deviceUrl()), { user_code: refused.user_code });
  await browser.submit(page, { answer: "no" });
  assert.equal(errorOf(await poll(refused.device_code)), "access_denied");
  assert.equal((await browser.submit(page, { answer: "yes" })).status, 401, "no is no");
});

test("signing out ends the session; a token of a person without a session is worth nothing", async () => {
  const given = await trial.signIn();
  const answer = await trial.post("/oauth2/v2.0/revoke", { client_id: clientId, token: given.refresh_token });
  assert.equal(answer.status, 200);
  const after = await trial.arm(given.access_token, "GET", "/subscriptions");
  assert.deepEqual([after.status, codeOf(after)], [401, "Unauthorized"]);
  assert.equal((await trial.post("/oauth2/v2.0/revoke", { token: "unknown" })).status, 200);
});
