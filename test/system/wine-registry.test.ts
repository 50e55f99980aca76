// The registry forms of a plan, imported by Wine's own reg.exe: the values that Windows programs would read are the plan's.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { runCommand, tryCommand } from "../../src/base/run-command.ts";
import { ensurePackages } from "../../src/cli/setup/packages.ts";
import { planMatrix } from "../../src/connectivity/plan/matrix.ts";
import { parsePlan } from "../../src/connectivity/plan/plan-document.ts";
import { findFormat } from "../../src/connectivity/plan/renderings/formats.ts";
import { wholePlan } from "../../src/connectivity/plan/test-plans.ts";

/** The 64-bit loader itself: Debian's wrapper asks for a 32-bit one, which nothing here needs. */
const wine = "/usr/lib/wine/wine64";
const packages = [
  { name: "wine", proof: "/usr/bin/wineserver", why: "Wine's server" },
  { name: "wine64", proof: wine, why: "imports the registry forms" },
];
const skip = process.getuid?.() === 0 ? false : "needs root to install Debian's wine";
const wineMsMax = 180_000;

describe("the registry forms", { skip }, () => {
  let folder = "";
  let env: NodeJS.ProcessEnv = {};
  before(async () => {
    await ensurePackages(packages, { purpose: "the registry forms' test", confirm: "announce" });
    folder = await mkdtemp(join(tmpdir(), "watari-wine-"));
    const quiet = { WINEDEBUG: "-all", WINEDLLOVERRIDES: "mscoree=;mshtml=;winemenubuilder.exe=" };
    env = { ...process.env, HOME: folder, WINEPREFIX: join(folder, "prefix"), WINEARCH: "win64", DISPLAY: "", ...quiet };
    await runCommand(wine, ["wineboot", "-i"], { env, timeoutMs: wineMsMax });
  });
  after(async () => {
    await tryCommand("wineserver", ["-k", "-w"], { env, timeoutMs: wineMsMax }); // It may have ended by itself.
    await rm(folder, { recursive: true, force: true });
  });

  const plan = parsePlan(wholePlan);
  const matrix = planMatrix(plan);
  const [role] = matrix.roles;
  const render = (form: string): { readonly name: string; readonly bytes: Uint8Array } => {
    assert.ok(role !== undefined);
    return findFormat(form).render({ plan, matrix, role, dnsMode: "records" }).files[0] ?? assert.fail(form);
  };
  /**
   * Imports the form and reads the key back, in one go: the system account's branch lives as long as Wine's server does, and that ends with
   * the last program. reg.exe writes a value as name, type and text, four spaces between.
   */
  const importAndRead = async (form: string, key: string): Promise<Readonly<Record<string, string>>> => {
    const { name, bytes } = render(form);
    await writeFile(join(folder, name), bytes);
    const file = `Z:${join(folder, name).replaceAll("/", "\\")}`;
    const script = '"$0" reg import "$1" && exec "$0" reg query "$2"';
    const { stdout } = await runCommand("sh", ["-c", script, wine, file, key], { env, timeoutMs: wineMsMax });
    const lines = [...stdout.matchAll(/^ {4}(\S+) {4}(REG_\w+) {4}(.*?)\r?$/gm)];
    return Object.fromEntries(lines.map(([, value = "", kind = "", text = ""]) => [value, `${kind} ${text}`]));
  };
  const names = matrix.cells.flatMap(({ endpoint }) => (endpoint.kind === "private" ? [endpoint.name] : []));

  test("the appliance's proxy and its bypass list are what the plan says, the storage account's name among them", async () => {
    const key = String.raw`HKLM\SOFTWARE\Microsoft\Azure Site Recovery\ProxySettings`;
    const { ProxyAddress, ProxyBypassUrls = "" } = await importAndRead("registry", key);
    assert.equal(ProxyAddress, `REG_SZ ${plan.proxies["site"]?.url ?? ""}`);
    const bypass = ProxyBypassUrls.replace("REG_SZ ", "").split(";");
    for (const name of names) assert.ok(bypass.includes(name), name);
  });

  test("the system account's Internet settings are on, name the proxy, and except every private name", async () => {
    const key = String.raw`HKU\S-1-5-18\Software\Microsoft\Windows\CurrentVersion\Internet Settings`;
    const { ProxyEnable, ProxyServer, ProxyOverride = "" } = await importAndRead("wininet", key);
    assert.deepEqual([ProxyEnable, ProxyServer], ["REG_DWORD 0x1", `REG_SZ ${new URL(plan.proxies["site"]?.url ?? "").host}`]);
    const excepted = ProxyOverride.replace("REG_SZ ", "").split(";");
    for (const name of [...names, "<local>"]) assert.ok(excepted.includes(name), name);
  });
});
