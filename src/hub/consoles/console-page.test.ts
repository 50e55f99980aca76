// The hub's page with a serial console, in a real browser before a real emulator: what is said is shown, what is typed arrives, the ticket leaves the address.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { it } from "node:test";
import { chromium } from "playwright-core";
import { z } from "zod";
import { echoMachineMissing } from "../../landing/qemu/echo-machine.ts";
import { openEchoHub } from "../test-echo-hub.ts";

const executablePath = "/usr/bin/chromium";
const missing = existsSync(executablePath) ? echoMachineMissing() : "chromium is not here";

it("the page of a serial console shows and types, and says why it ended", { skip: missing ?? false }, async () => {
  const stateDir = await mkdtemp(join(tmpdir(), "wcp-"));
  const hub = await openEchoHub(stateDir);
  await hub.power("start");
  const opened = z.object({ pageUrl: z.string() }).parse((await hub.arm("POST", `${hub.machine}/openConsole`, { kind: "serial" })).body);
  const address = new URL(opened.pageUrl);
  address.port = String(hub.hub.port);
  const args = ["--no-sandbox", "--disable-gpu", `--host-resolver-rules=MAP ${address.hostname} 127.0.0.1`];
  const browser = await chromium.launch({ executablePath, args });
  try {
    const page = await browser.newPage({ ignoreHTTPSErrors: true });
    const complaints: string[] = [];
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(error.message));
    const status = page.getByRole("status");
    const rows = page.locator(".xterm-rows");
    await page.goto(address.href);
    await status.filter({ hasText: "Connected." }).waitFor();
    await rows.filter({ hasText: "echo machine ready" }).waitFor();
    await page.locator(".xterm-helper-textarea").focus();
    await page.keyboard.type("typed in a browser");
    await rows.filter({ hasText: "typed in a browser" }).waitFor();
    assert.equal(new URL(page.url()).hash, "");
    await hub.power("powerOff?skipShutdown=true");
    await status.filter({ hasText: "Closed: the machine stopped" }).waitFor();
    assert.deepEqual(complaints, []);
    await page.reload();
    await status.filter({ hasText: "No ticket" }).waitFor();
  } finally {
    await browser.close();
    await hub.power("powerOff?skipShutdown=true");
    await hub.hub[Symbol.asyncDispose]();
    await rm(stateDir, { recursive: true, force: true });
  }
});
