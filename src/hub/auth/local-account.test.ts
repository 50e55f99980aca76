// The local account as its command makes it: one sign-in a secret, limited tries, and an end by time, by command or by the first real Owner.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { decodeJwt } from "jose";
import { z } from "zod";
import { systemClock, toTimestamp } from "../../base/clock.ts";
import { systemRandom } from "../../base/random.ts";
import { tryCommand } from "../../base/run-command.ts";
import { localAccountGrant } from "../../contract/sign-in.ts";
import { pageOfAudit } from "../db/audit-entries.ts";
import { openLocalAccounts } from "../db/local-account.ts";
import { callTarget, findFreePort, loopbackNetwork, openTestHub, testDomain, type Answer } from "../test-client.ts";
import { hashLocalSecret, makeLocalSecret } from "./local-account.ts";
import { clientId, errorOf, openSignInTrial, type SignInTrial } from "./test-sign-in.ts";

const mainFile = join(import.meta.dirname, "../../main.ts");
const owner = "/providers/Microsoft.Authorization/roleDefinitions/8e3af657-a8ff-443c-a75c-2fe8c4bcb635";
const fileShape = z.object({ secret: z.string(), expiresAt: z.string(), loginUrl: z.string(), caPem: z.string() });
const tokensShape = z.object({ access_token: z.string(), refresh_token: z.string() });

let folder: string;
let trial: SignInTrial;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "watari-local-"));
  const port = await findFreePort();
  trial = await openSignInTrial(folder, { localPort: port, limits: { failedSignIns: { perSecond: 0.001, burst: 12 } } });
  const config = { domain: testDomain, stateDir: folder, publicAddresses: ["127.0.0.1"], managementPort: port, localName: "localhost" };
  await writeFile(join(folder, "hub.yaml"), JSON.stringify(config));
});
after(async () => {
  await trial[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function account(...args: readonly string[]) {
  const program = [
    "--disable-warning=ExperimentalWarning",
    mainFile,
    "hub",
    "account",
    ...args,
    "--config",
    join(folder, "hub.yaml"),
    "--json",
  ];
  return await tryCommand(process.execPath, program, { timeoutMs: 60_000 });
}

async function create(...args: readonly string[]): Promise<z.infer<typeof fileShape>> {
  const made = await account("create", ...args);
  assert.equal(made.exitCode, 0, made.stderr);
  const { file } = z.object({ file: z.string() }).parse(JSON.parse(made.stdout));
  assert.equal((await stat(file)).mode & 0o777, 0o600);
  const facts = fileShape.parse(JSON.parse(await readFile(file, "utf8")));
  assert.equal(`${made.stdout}${made.stderr}`.includes(facts.secret), false, "the secret is in the file alone");
  return facts;
}

const signIn = async (secret: string): Promise<Answer> =>
  await trial.token({ grant_type: localAccountGrant, secret, scope: trial.audience });
const read = async (token: string): Promise<number> =>
  (await trial.arm(token, "GET", `/subscriptions/${trial.hub.operator.subscriptionId}`)).status;

test("its secret signs in once, as Owner; what it gave ends with the command", async () => {
  const { secret, loginUrl, caPem } = await create();
  assert.deepEqual([loginUrl, caPem.trim()], [trial.hub.hub.loginUrl, trial.hub.hub.caPem.trim()]);
  const given = tokensShape.parse((await signIn(secret.toLowerCase().replaceAll("-", " "))).body);
  assert.equal(await read(given.access_token), 200);
  assert.equal(errorOf(await signIn(secret)), "invalid_grant", "a second time");
  const renewed = tokensShape.parse((await trial.token({ grant_type: "refresh_token", refresh_token: given.refresh_token })).body);
  assert.equal((await account("disable")).exitCode, 0);
  assert.equal(await read(renewed.access_token), 401);
  assert.equal(errorOf(await trial.token({ grant_type: "refresh_token", refresh_token: renewed.refresh_token })), "invalid_grant");
  const second = await create();
  const page = trial.openBrowser();
  const choice = await page.open(trial.ask().url);
  assert.match(choice.text, /Secret of the local account/);
  assert.match(choice.text, /Sign in with Test/, "the provider is offered beside it");
  const wrong = await page.submit(choice, { secret: "wrong" });
  assert.deepEqual([wrong.status, wrong.text.includes("The secret is wrong")], [401, true]);
  const end = await page.submit(wrong, { secret: second.secret });
  assert.ok(end.url.searchParams.get("code"));
});

test("it is over with its time, when it is made anew, and when a person of the provider is Owner", async () => {
  const { subscriptionId } = trial.hub.operator;
  const { db } = trial.hub.hub.services.database;
  const accounts = openLocalAccounts({ db, clock: systemClock, random: systemRandom, subscriptionId });
  const late = makeLocalSecret(systemRandom);
  const expiresAt = toTimestamp(systemClock.nowMs() - 1000);
  await accounts.make({ kind: "firstHour", secretHash: await hashLocalSecret(late, systemRandom), expiresAt });
  assert.equal(errorOf(await signIn(late)), "invalid_grant", "past its time");
  const old = await create();
  const { secret } = await create();
  assert.equal(errorOf(await signIn(old.secret)), "invalid_grant", "made anew");
  const given = tokensShape.parse((await signIn(secret)).body);

  trial.provider.person = { id: "gina", name: "Gina", groups: [] };
  const gina = z.string().parse(decodeJwt((await trial.signIn()).access_token)["oid"]);
  const path = `/subscriptions/${subscriptionId}/providers/Microsoft.Authorization/roleAssignments/${systemRandom.uuid()}`;
  const properties = { principalId: gina, roleDefinitionId: owner, principalType: "User" };
  assert.equal((await trial.arm(given.access_token, "PUT", path, { properties })).status, 201);
  assert.equal(await read(given.access_token), 401, "from the next call on");
  const shown = z
    .object({ isActive: z.boolean(), endReason: z.string(), owner: z.string() })
    .parse(JSON.parse((await account("show")).stdout));
  assert.deepEqual([shown.isActive, shown.endReason.includes("Gina"), shown.owner], [false, true, "Gina"]);
  const refused = await account("create");
  assert.deepEqual([refused.exitCode, refused.stderr.includes("--break-glass")], [3, true]);
  const glass = await create("--break-glass", "--valid-minutes", "5");
  const rescued = tokensShape.parse((await signIn(glass.secret)).body);
  assert.equal(await read(rescued.access_token), 200, "an Owner does not end it");
  assert.equal((await account("disable")).exitCode, 0);
});

test("guessing is slowed by address, for the right secret too, and the trail tells of it", async () => {
  const { secret } = await create("--break-glass");
  const answers: number[] = [];
  for (let attempt = 0; attempt < 14; attempt++) answers.push((await signIn(makeLocalSecret(systemRandom))).status);
  assert.ok(answers.includes(401) && answers.at(-1) === 429, answers.join(" "));
  assert.equal((await signIn(secret)).status, 429);
  assert.equal((await trial.openBrowser().open(trial.ask().url)).status, 429);
  const rows = await pageOfAudit(trial.hub.hub.services.database.db, 0, 10_000);
  const text = rows.map((row) => row.entry).join("\n");
  for (const part of [
    "localAccount/create/action",
    "breakGlass, until",
    "refused: the secret of the local account",
    "too many sign-ins",
    "disabled by command",
  ])
    assert.ok(text.includes(part), part);
  assert.equal(text.includes(secret), false);
  const kept = await trial.hub.hub.services.database.db.selectFrom("local_account").selectAll().execute();
  assert.equal(JSON.stringify(kept).includes(secret.replaceAll("-", "")), false);
  assert.equal(JSON.stringify(kept).includes(secret), false);
});

test("the first operator is a program like others: it can be removed, and no start makes it anew", async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "watari-operator-"));
  const limits = { signIns: { perSecond: 0.001, burst: 2 } };
  const options = { stateDir, cidr: loopbackNetwork(), endpointPort: await findFreePort(), limits };
  try {
    const hub = await openTestHub(options);
    const beginDevice = async () =>
      await callTarget(hub.target(`login.${testDomain}`), {
        method: "POST",
        path: `/${hub.operator.tenantId}/oauth2/v2.0/devicecode`,
        body: new URLSearchParams({ client_id: clientId, scope: trial.audience }).toString(),
        headers: { "content-type": "application/x-www-form-urlencoded" },
      });
    assert.equal(errorOf(await beginDevice()), "access_denied", "nobody waits for what cannot be");
    await beginDevice();
    assert.equal((await beginDevice()).status, 429, "sign-ins that are begun are limited by address");
    const path = `/subscriptions/${hub.operator.subscriptionId}/providers/Watari.Identity/servicePrincipals`;
    const listed = z.object({ value: z.array(z.object({ name: z.string(), properties: z.object({ displayName: z.string() }) })) });
    const [operator] = listed.parse((await hub.arm("GET", path)).body).value;
    assert.equal(operator?.properties.displayName, "operator");
    assert.equal((await hub.arm("DELETE", `${path}/${operator.name}`)).status, 200);
    assert.equal((await hub.arm("GET", path)).status, 401);
    await hub.hub[Symbol.asyncDispose]();
    const again = await openTestHub(options);
    await assert.rejects(again.token(), /sign-in was answered with 401/);
    await again.hub[Symbol.asyncDispose]();
  } finally {
    await rm(stateDir, { recursive: true, force: true });
  }
});
