// People with @azure/identity as it is, and with the command line: real provider, real hub, a browser that a test drives.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmod, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { getCACertificates, setDefaultCACertificates } from "node:tls";
import { DeviceCodeCredential, InteractiveBrowserCredential } from "@azure/identity";
import { ResourceManagementClient } from "@azure/arm-resources";
import { z } from "zod";
import { systemClock } from "../../src/base/clock.ts";
import { systemRandom } from "../../src/base/random.ts";
import { openSignInTrial, type SignInTrial } from "../../src/hub/auth/test-sign-in.ts";
import type { Seen } from "../../src/hub/auth/test-browser.ts";
import { findFreePort } from "../../src/hub/test-client.ts";

const projectRoot = join(import.meta.dirname, "../..");
const waitMsMax = 30_000;

let folder: string;
let trial: SignInTrial;
let caFile: string;
let hubUrl: string;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "watari-persons-"));
  trial = await openSignInTrial(folder, { localPort: await findFreePort() });
  setDefaultCACertificates([...getCACertificates("default"), trial.hub.hub.caPem]);
  caFile = join(folder, "ca-of-the-hub.pem");
  await writeFile(caFile, trial.hub.hub.caPem);
  hubUrl = trial.hub.hub.managementUrl;
  const { subscriptionId } = trial.hub.operator;
  const groupId = systemRandom.uuid();
  const group = `/subscriptions/${subscriptionId}/providers/Watari.Identity/groups/${groupId}`;
  await trial.hub.arm("PUT", group, { properties: { displayName: "movers", claimValue: "movers" } });
  const roleDefinitionId = "/providers/Microsoft.Authorization/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c";
  const assignment = `/subscriptions/${subscriptionId}/providers/Microsoft.Authorization/roleAssignments/${systemRandom.uuid()}`;
  const assigned = await trial.hub.arm("PUT", assignment, {
    properties: { principalId: groupId, roleDefinitionId, principalType: "Group" },
  });
  assert.equal(assigned.status, 201);
  trial.provider.person = { id: "anna", name: "Anna", groups: ["movers"] };
});
after(async () => {
  await trial[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function enterDeviceCode(userCode: string): Promise<void> {
  const browser = trial.openBrowser();
  const confirm = await browser.submit(await browser.open(trial.deviceUrl()), { user_code: userCode });
  const end = await browser.submit(confirm, { answer: "yes" });
  assert.match(end.text, /Signed in/);
}

/** What a browser does with the page of the form post response mode. */
async function sendFormOn({ text }: Seen): Promise<void> {
  const action = /action="([^"]+)"/.exec(text)?.[1] ?? "";
  const fields = [...text.matchAll(/name="([^"]+)" value="([^"]*)"/g)].map(([, name = "", value = ""]): [string, string] => [
    decode(name),
    decode(value),
  ]);
  assert.equal((await fetch(decode(action), { method: "POST", body: new URLSearchParams(fields) })).status, 200);
}

function decode(text: string): string {
  return text.replaceAll(/&#(\d+);/g, (_whole, code: string) => String.fromCharCode(Number(code)));
}

async function waitFor<T>(what: string, look: () => Promise<T | undefined>): Promise<T> {
  const endMs = systemClock.monotonicMs() + waitMsMax;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    assert.ok(systemClock.monotonicMs() < endMs, `waited too long for ${what}`);
    await systemClock.sleep(50);
  }
}

async function makeGroup(credential: DeviceCodeCredential | InteractiveBrowserCredential, name: string): Promise<string | undefined> {
  const client = new ResourceManagementClient(credential, trial.hub.operator.subscriptionId, { endpoint: hubUrl });
  return (await client.resourceGroups.createOrUpdate(name, { location: "lab1" })).name;
}

function authority() {
  return { tenantId: trial.hub.operator.tenantId, authorityHost: trial.hub.hub.loginUrl, disableInstanceDiscovery: true };
}

test("DeviceCodeCredential signs a person in, and Microsoft's clients work with what it gives", async () => {
  let entering: Promise<void> | undefined;
  const credential = new DeviceCodeCredential({
    ...authority(),
    userPromptCallback: ({ userCode, message }) => {
      assert.ok(message.includes(userCode));
      entering = enterDeviceCode(userCode);
    },
  });
  assert.equal(await makeGroup(credential, "by-device"), "by-device");
  await entering;
  const scope = `${hubUrl}/.default`;
  const first = await credential.getToken(scope);
  assert.ok(first.expiresOnTimestamp > systemClock.nowMs());
});

test("InteractiveBrowserCredential signs a person in by the browser that it opens", async () => {
  const addressFile = join(folder, "opened-address");
  const browser = join(folder, "browser");
  await writeFile(browser, `#!/bin/sh\nprintf %s "$1" > ${addressFile}.part && mv ${addressFile}.part ${addressFile}\n`);
  await chmod(browser, 0o755);
  process.env["BROWSER"] = browser;
  const credential = new InteractiveBrowserCredential(authority());
  const made = makeGroup(credential, "by-browser");
  made.catch(() => undefined); // It is awaited below, once the browser has done its part.
  const address = await waitFor("the browser to be opened", async () => await readFile(addressFile, "utf8").catch(() => undefined));
  await sendFormOn(await trial.openBrowser().open(address));
  assert.equal(await made, "by-browser");
});

interface Ended {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** The command line as a child; `watch` sees what it says while it runs. */
async function watari(profile: string, args: readonly string[], watch?: (stderr: string) => void): Promise<Ended> {
  const env = { ...process.env, WATARI_PROFILE: join(folder, profile), DISPLAY: undefined, WAYLAND_DISPLAY: undefined };
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "src/main.ts", ...args], { cwd: projectRoot, env });
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (chunk: Buffer) => (stdout += chunk.toString("utf8")));
  child.stderr.on("data", (chunk: Buffer) => {
    stderr += chunk.toString("utf8");
    watch?.(stderr);
  });
  return await new Promise((resolve) => child.once("close", (exitCode) => resolve({ exitCode, stdout, stderr })));
}

const outShape = z.looseObject({ rights: z.string() });

test("the command line signs a person in by browser and by device code, renews, and signs out", async () => {
  const hub = ["--hub", hubUrl, "--ca-file", caFile, "--json"];
  let visiting: Promise<Seen> | undefined;
  const byBrowser = await watari("browser.json", ["login", ...hub], (said) => {
    const address = /https:\S+authorize\S+/.exec(said)?.[0];
    if (address === undefined || visiting !== undefined) return;
    visiting = trial
      .openBrowser()
      .open(address)
      .then(async (end) => {
        assert.equal((await fetch(end.url)).status, 200);
        return end;
      });
  });
  assert.equal(byBrowser.exitCode, 0, byBrowser.stderr);
  assert.equal(outShape.parse(JSON.parse(byBrowser.stdout)).rights, "write");
  await visiting;
  for (const name of ["browser.json", "browser.json.session"]) assert.equal((await stat(join(folder, name))).mode & 0o777, 0o600, name);

  let entering: Promise<void> | undefined;
  const byDevice = await watari("device.json", ["login", "--device", ...hub], (said) => {
    const code = /enter the code ([A-Z]{4}-[A-Z]{4})/.exec(said)?.[1];
    if (code !== undefined) entering ??= enterDeviceCode(code);
  });
  assert.equal(byDevice.exitCode, 0, byDevice.stderr);
  await entering;

  // The access token is over: of three commands at a time one renews, and no refresh token is shown twice.
  const sessionFile = join(folder, "browser.json.session");
  const session = z.looseObject({ refreshToken: z.string() }).parse(JSON.parse(await readFile(sessionFile, "utf8")));
  await writeFile(sessionFile, JSON.stringify({ ...session, expiresAtMs: 0 }));
  const three = await Promise.all([1, 2, 3].map(async () => await watari("browser.json", ["principal", "list", "--json"])));
  assert.deepEqual(
    three.map((end) => end.exitCode),
    [0, 0, 0],
    three.map((end) => end.stderr).join("\n"),
  );
  assert.ok(three[0]?.stdout.includes("anna@test"));
  const kept = await readFile(sessionFile, "utf8");
  assert.equal(kept.includes(session.refreshToken), false);

  assert.equal((await watari("browser.json", ["logout"])).exitCode, 0);
  await writeFile(
    join(folder, "browser.json"),
    await readFile(join(folder, "device.json"), "utf8").then((text) => text.replaceAll("device.json", "browser.json")),
  );
  await writeFile(sessionFile, kept);
  const after = await watari("browser.json", ["principal", "list"]);
  assert.deepEqual([after.exitCode, after.stderr.includes("watari login")], [3, true], after.stderr);
});

test("the command line makes a program, gives it a role by its group, and takes everything away again", async () => {
  const owner = join(folder, "operator.json");
  const run = async (profile: string, ...args: readonly string[]): Promise<unknown> => {
    const end = await watari(profile, [...args, "--json"]);
    assert.equal(end.exitCode, 0, `${args.join(" ")}\n${end.stderr}`);
    return JSON.parse(end.stdout);
  };
  await run("owner.json", "login", "--operator-file", owner);
  const out = join(folder, "report.json");
  await run("owner.json", "principal", "create", "report", "--out", out);
  assert.equal((await stat(out)).mode & 0o777, 0o600);
  const secret = z.looseObject({ clientSecret: z.string() }).parse(JSON.parse(await readFile(out, "utf8"))).clientSecret;
  const none = outShape.parse(await run("report.json.profile", "login", "--credential-file", out));
  assert.equal(none.rights, "none");
  await run("owner.json", "group", "create", "readers");
  await run("owner.json", "group", "add", "readers", "report");
  await run("owner.json", "role", "assign", "reader", "--to", "readers");
  const roles = z
    .array(z.looseObject({ role: z.string(), name: z.string() }))
    .parse(await run("owner.json", "role", "list", "--to", "report"));
  assert.deepEqual(
    roles.map(({ role, name }) => [role, name]),
    [["Reader", "readers"]],
  );
  await run("report.json.profile", "principal", "list");
  const refused = await watari("report.json.profile", ["principal", "create", "another", "--out", join(folder, "no.json")]);
  assert.deepEqual([refused.exitCode, refused.stderr.includes("sufficientRoles")], [3, true]);
  await run("owner.json", "role", "remove", "Reader", "--from", "readers");
  assert.equal((await watari("report.json.profile", ["principal", "list"])).exitCode, 3);
  const unsure = await watari("owner.json", ["principal", "remove", "report"]);
  assert.deepEqual([unsure.exitCode, unsure.stderr.includes("--yes")], [2, true]);
  await run("owner.json", "principal", "remove", "report", "--yes");
  const gone = await watari("report.json.profile", ["principal", "list"]);
  assert.equal(gone.exitCode, 3);
  for (const end of [refused, unsure, gone]) assert.equal(`${end.stdout}${end.stderr}`.includes(secret), false);
});
