// Promises of the set-up page in a browser: a person is led through all steps, can leave and reload anywhere, and is told what to repair.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { createServer, type AddressInfo } from "node:net";
import { after, before, describe, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { callAppliance } from "../../src/appliance/admin/admin-client.ts";
import { createFacts } from "../../src/appliance/testing/scripted-agent.ts";
import { startFakeHub, type FakeHub } from "../../src/appliance/testing/fake-hub.ts";
import {
  simulatorMissing,
  simulatorPassword,
  simulatorUser,
  startVcenterSimulator,
} from "../../src/appliance/testing/vcenter-simulator.ts";
import { english, type Texts } from "../../src/setup-ui/view/texts-en.ts";
import { japanese } from "../../src/setup-ui/view/texts-ja.ts";
import { startProtectedMachine, startRegistered, until } from "./setup-site.ts";
import { makePageFolder, openBrowser, openWindow, overflowing, picture, startSetupAppliance, type Look } from "./setup-page-rig.ts";

const missing = existsSync("/usr/bin/chromium") ? await simulatorMissing() : "needs Debian's chromium";

async function signIn(page: Page, texts: Texts, password: string): Promise<void> {
  await page.getByLabel(texts.password).fill(password);
  await page.getByRole("button", { name: texts.signIn }).click();
}

/** The state of a step in the list beside the page. */
async function waitStep(page: Page, step: string, status: "done" | "current"): Promise<void> {
  await page.locator(`[data-step="${step}"][data-status="${status}"]`).waitFor();
}

async function openNext(page: Page, texts: Texts, title: string): Promise<void> {
  await page.getByRole("button", { name: texts.next, exact: true }).click();
  await page.getByRole("heading", { level: 1, name: title, exact: true }).waitFor();
}

/** The first failed target with its words. */
async function failedText(page: Page): Promise<string> {
  const failed = page.locator("[data-verdict=fail]").first();
  await failed.waitFor();
  return await failed.innerText();
}

/** A proxy that refuses everything: 407, or 403 to who shows a password. */
async function startProxy(): Promise<{ readonly url: string } & AsyncDisposable> {
  const server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("data", () => socket.end("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"));
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => await new Promise<void>((resolve) => void server.close(() => resolve())),
  };
}

describe("the set-up page in a browser", { skip: missing ?? false, concurrency: 2 }, () => {
  let hub: FakeHub;
  let browser: Browser;
  let files: Awaited<ReturnType<typeof makePageFolder>>;
  before(async () => {
    hub = await startFakeHub();
    files = await makePageFolder();
    browser = await openBrowser();
  });
  after(async () => {
    await browser?.close();
    await files?.[Symbol.asyncDispose]();
    await hub?.[Symbol.asyncDispose]();
  });

  const journey = async (look: Look, texts: Texts): Promise<void> => {
    await using appliance = await startSetupAppliance({ hubPort: hub.port, pageFolder: files.folder });
    await using vcenter = await startVcenterSimulator({ machineCount: 3 });
    // The vault has another process server already.
    const vaultResourceId = `/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/${look.language}`;
    await using _other = await startRegistered(hub, { name: "site-kobe", vaultResourceId });
    const password = await appliance.newPassword();
    const { page, complaints } = await openWindow(browser, look);
    const shown = async (name: string): Promise<void> => {
      assert.equal(await overflowing(page), "", `${name} sticks out`);
      await picture(page, `${name}-${look.language}`);
    };
    await page.goto(appliance.url);
    await page.getByRole("heading", { name: texts.title }).waitFor();
    await shown("01-sign-in");
    await signIn(page, texts, password);

    await page.getByRole("heading", { level: 1, name: texts.steps.network.title }).waitFor();
    await page.getByLabel(texts.network.name).fill("site-osaka");
    assert.equal(await page.getByRole("navigation").getByRole("button").count(), 2, "a later step cannot be chosen");
    await page.getByRole("button", { name: texts.saveAndCheck }).click();
    await waitStep(page, "network", "done");
    await shown("02-network");

    await openNext(page, texts, texts.steps.names.title);
    const key = JSON.stringify(hub.createKey({ vaultResourceId }));
    const file = (text: string): { name: string; mimeType: string; buffer: Buffer } => ({
      name: "key.json",
      mimeType: "application/json",
      buffer: Buffer.from(text),
    });
    await page.getByLabel(texts.names.chooseKey).setInputFiles(file("{}"));
    await page.getByRole("alert").waitFor();
    await page.getByLabel(texts.names.resolver).fill("127.0.0.1:9");
    await page.getByLabel(texts.names.chooseKey).setInputFiles(file(key));
    assert.ok((await failedText(page)).includes(texts.hops["dns"] ?? "?"));
    await shown("03-names-unresolved");
    await appliance.kill();
    await appliance.restart();
    await page.goto(`${appliance.url}#/names`);
    await signIn(page, texts, password);
    assert.ok((await failedText(page)).includes(texts.repair), "what was found is still there");
    await page.getByLabel(texts.names.resolver).fill("");
    await page.getByLabel(texts.names.hosts).fill(hub.hosts.map(({ name }) => `127.0.0.1 ${name}`).join("\n"));
    await page.getByRole("button", { name: texts.saveAndCheck }).click();
    await waitStep(page, "names", "done");
    await shown("04-names");
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: texts.names.download }).click()]);
    assert.equal(download.suggestedFilename(), "hosts.txt");

    await openNext(page, texts, texts.steps.proxy.title);
    await page.getByRole("button", { name: texts.saveAndCheck }).click();
    await waitStep(page, "proxy", "done");
    await page.reload();
    await page.getByRole("heading", { level: 1, name: texts.steps.proxy.title }).waitFor();
    await shown("05-proxy");

    await openNext(page, texts, texts.steps.time.title);
    await page.getByRole("button", { name: texts.time.check }).click();
    await waitStep(page, "time", "done");
    await shown("06-time");

    await openNext(page, texts, texts.steps.registration.title);
    await shown("07-registration");
    await page.getByRole("button", { name: texts.registration.register }).click();
    await waitStep(page, "registration", "done");
    await shown("08-registered");

    await openNext(page, texts, texts.steps.vcenter.title);
    await page.getByLabel(texts.vcenter.host).fill("127.0.0.1");
    await page.getByLabel(texts.vcenter.port).fill(String(vcenter.port));
    await page.getByLabel(texts.vcenter.user).fill(simulatorUser);
    await page.getByLabel(texts.vcenter.password).fill(simulatorPassword);
    await page.getByRole("button", { name: texts.vcenter.add }).click();
    await page.getByText(vcenter.thumbprint.toUpperCase().match(/../g)?.join(":") ?? "?").waitFor();
    await shown("09-vcenter-certificate");
    await page.getByRole("button", { name: texts.vcenter.trust }).click();
    await waitStep(page, "vcenter", "done");
    await shown("10-vcenter");

    await openNext(page, texts, texts.steps.credentials.title);
    await page.getByLabel(texts.credentials.name, { exact: true }).fill("linux-guests");
    await page.getByRole("textbox", { name: texts.credentials.password }).fill("s3cret-word");
    await shown("11-credentials");
    await page.getByRole("button", { name: texts.credentials.add }).click();
    await page.getByRole("region", { name: texts.credentials.trial }).waitFor();
    await shown("11-credentials-tried");
    await page.getByRole("button", { name: texts.credentials.confirm, exact: true }).click();
    await page.getByRole("heading", { level: 1, name: texts.steps.check.title }).waitFor();
    await page.getByRole("button", { name: texts.check.start }).click();
    await waitStep(page, "check", "done");
    await shown("12-check");
    await page.getByRole("button", { name: texts.next, exact: true }).click();
    await page.getByRole("heading", { name: texts.done.title }).waitFor();
    await shown("13-done");
    await using _agent = await startProtectedMachine(appliance.folder, { ...createFacts(), hostname: "ledger1" });
    await until("the agent tells how it replicates", async () => {
      const { machines } = await callAppliance(appliance.folder, "status", {});
      return machines.some(({ flow }) => flow.mode.phase === "delta" && flow.drainSeconds !== undefined);
    });
    await page.getByRole("button", { name: texts.done.open }).click();
    const agent = page.locator("[data-kind=agent]");
    await agent.getByText(texts.componentsPage.measures.behind).waitFor();
    assert.equal(await agent.getAttribute("data-level"), "healthy");
    assert.match(await agent.innerText(), /^.*ledger1/s);
    await page.getByText(texts.componentsPage.elsewhere("site-kobe"), { exact: true }).waitFor();
    assert.deepEqual(await page.locator("[data-kind]").evaluateAll((cards) => cards.map((card) => card.getAttribute("data-kind"))), [
      ...["configurationServer", "processServer", "processServer", "uploader", "vcenter", "agent"],
    ]);
    await shown("14-components");
    await page.getByRole("button", { name: texts.signOut }).click();
    await page.getByRole("heading", { name: texts.title }).waitFor();
    assert.deepEqual(complaints, []);
    await page.context().close();
  };

  test("leads from sign-in to registered, in English", async () => await journey({ language: "en" }, english));

  test("leads from sign-in to registered, in Japanese, on a dark and narrow screen", async () =>
    await journey(
      { language: "ja", ...(process.env["WATARI_SETUP_PICTURES"] === undefined ? { theme: "dark", width: 700 } : {}) },
      japanese,
    ));

  test("makes who guesses the password wait, and changes its language on the way", async () => {
    await using appliance = await startSetupAppliance({ hubPort: hub.port, pageFolder: files.folder });
    await appliance.newPassword();
    const { page, complaints } = await openWindow(browser, { language: "en", theme: "dark" });
    await page.goto(appliance.url);
    for (let wrong = 0; wrong < 6; wrong++) {
      await page.getByLabel(english.password).fill(`wrong-${wrong}`);
      await Promise.all([page.waitForResponse(/signIn/), page.getByRole("button", { name: english.signIn }).click()]);
    }
    await page.getByText(/too many wrong passwords/).waitFor();
    await page.getByLabel(english.language).selectOption("ja");
    await page.getByText(japanese.faults["TooManyRequests"] ?? "?").waitFor();
    assert.equal(await page.locator("html").getAttribute("lang"), "ja");
    await page.reload();
    await page.getByText(japanese.signInLead).waitFor();
    assert.deepEqual(complaints, []);
    await page.context().close();
  });

  test("says which hop fails at a proxy that refuses, and goes on when it is repaired", async () => {
    await using appliance = await startSetupAppliance({ hubPort: hub.port, pageFolder: files.folder });
    await using proxy = await startProxy();
    const password = await appliance.newPassword();
    const { page, complaints } = await openWindow(browser, { language: "en", theme: "dark" });
    await page.goto(appliance.url);
    await signIn(page, english, password);
    await page.getByRole("button", { name: english.saveAndCheck }).click();
    await waitStep(page, "network", "done");
    await openNext(page, english, english.steps.names.title);
    const key = JSON.stringify(hub.createKey({ publicNames: ["management.watari.test"] }));
    await page.getByLabel(english.names.hosts).fill(hub.hosts.map(({ name }) => `127.0.0.1 ${name}`).join("\n"));
    await page
      .getByLabel(english.names.chooseKey)
      .setInputFiles({ name: "key.json", mimeType: "application/json", buffer: Buffer.from(key) });
    await waitStep(page, "names", "done");
    await openNext(page, english, english.steps.proxy.title);
    await page.getByLabel(english.proxy.url).fill(proxy.url);
    await page.getByRole("button", { name: english.saveAndCheck }).click();
    const told = await failedText(page);
    assert.ok(
      told.includes("management.watari.test") && told.includes(english.hops["proxy"] ?? "?") && told.includes(english.repair),
      told,
    );
    await waitStep(page, "proxy", "current");
    await picture(page, "15-proxy-refused-en");
    await page.goto(`${appliance.url}#/registration`);
    await page.getByRole("heading", { level: 1, name: english.steps.proxy.title }).waitFor();
    assert.deepEqual(complaints, []);
    await page.context().close();
  });
});
