// An appliance that is not set up yet, in a process of its own, and a browser that looks at its set-up page.

import { spawn, type ChildProcess } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium, type Browser, type Page } from "playwright-core";
import { callAppliance } from "../../src/appliance/admin/admin-client.ts";
import { buildSetupFiles } from "../../src/setup-ui/setup-bundle.ts";
import { createStateFolder, parseApplianceConfig, saveConfig } from "../../src/appliance/config/config.ts";

const childProgram = join(import.meta.dirname, "setup-appliance-child.ts");

export interface SetupAppliance extends AsyncDisposable {
  readonly folder: string;
  readonly url: string;
  kill(): Promise<void>;
  restart(): Promise<void>;
  newPassword(): Promise<string>;
}

/** The page as a package has it: made once for all appliances of a test. */
export async function makePageFolder(): Promise<{ readonly folder: string } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), "watari-setup-files-"));
  const { scripts } = await buildSetupFiles();
  for (const [name, content] of scripts) await writeFile(join(folder, name), content);
  return { folder, [Symbol.asyncDispose]: async () => await rm(folder, { recursive: true, force: true }) };
}

export async function startSetupAppliance(options: { readonly hubPort: number; readonly pageFolder: string }): Promise<SetupAppliance> {
  const folder = await mkdtemp(join(tmpdir(), "watari-setup-page-"));
  await createStateFolder(folder);
  const ports = { controlPort: 0, dataPort: 0, setupPort: 0, hubPort: options.hubPort };
  await saveConfig(folder, parseApplianceConfig({ listenAddresses: ["127.0.0.1"], ...ports, siteRanges: ["127.0.0.0/8"] }));
  let running = await startChild(folder, options.pageFolder);
  const end = async (signal: "SIGKILL" | "SIGTERM"): Promise<void> => {
    const { child } = running;
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()));
    child.kill(signal);
    await ended;
  };
  return {
    folder,
    get url() {
      return `https://127.0.0.1:${running.port}/`;
    },
    kill: async () => await end("SIGKILL"),
    restart: async () => {
      running = await startChild(folder, options.pageFolder);
    },
    newPassword: async () => (await callAppliance(folder, "setupPassword", {})).password,
    [Symbol.asyncDispose]: async () => {
      await end("SIGTERM");
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function startChild(folder: string, pageFolder: string): Promise<{ readonly child: ChildProcess; readonly port: string }> {
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", childProgram, folder, pageFolder], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const port = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    child.once("exit", (code) => reject(new Error(`the appliance ended with ${code}`)));
  });
  return { child, port };
}

export async function openBrowser(): Promise<Browser> {
  return await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
}

export interface Look {
  readonly language: "en" | "ja";
  readonly theme?: "light" | "dark";
  readonly width?: number;
}

/** A window of its own with nothing kept from others; what the page itself complains of goes into `complaints`. */
export async function openWindow(browser: Browser, look: Look): Promise<{ readonly page: Page; readonly complaints: string[] }> {
  const context = await browser.newContext({
    ignoreHTTPSErrors: true,
    locale: look.language === "ja" ? "ja-JP" : "en-GB",
    timezoneId: "UTC",
    colorScheme: look.theme ?? "light",
    viewport: { width: look.width ?? 1200, height: 800 },
    reducedMotion: "reduce",
  });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const complaints: string[] = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // A refused call is shown by the page; the browser lists it too.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) complaints.push(message.text());
  });
  return { page, complaints };
}

/** With WATARI_SETUP_PICTURES=DIR each page is kept as a picture; without it nothing is written. */
export async function picture(page: Page, name: string): Promise<void> {
  const folder = process.env["WATARI_SETUP_PICTURES"];
  if (folder === undefined) return;
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true, animations: "disabled" });
}

/** What sticks out to the side, as the browser sees it; empty when nothing does. */
export async function overflowing(page: Page): Promise<string> {
  const look = `(() => {
    const root = document.documentElement;
    const isOut = (each) => each.getBoundingClientRect().right > root.clientWidth;
    return root.scrollWidth <= root.clientWidth ? "" : [...root.querySelectorAll("body *")].filter(isOut).map((each) => each.outerHTML.slice(0, 900)).join("\\n");
  })()`;
  return String(await page.evaluate(look));
}
