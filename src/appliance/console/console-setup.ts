// The console set-up: sections in their order, each done and tried at once; then the appliance is started and its set-up page opened.

import { readFile } from "node:fs/promises";
import type { Clock } from "../../base/clock.ts";
import type { AdminResponse } from "../../contract/appliance-admin.ts";
import { Fault } from "../../contract/errors.ts";
import type { NetworkCheck } from "../../contract/network-check.ts";
import { callAppliance } from "../admin/admin-client.ts";
import { createStateFolder, loadConfig, parseApplianceConfig, saveConfig, type ApplianceConfig } from "../config/config.ts";
import { keepProxyLogin } from "../setup/proxy-credentials.ts";
import { checkClockKept, machineAddresses } from "../setup/setup-checks.ts";
import type { ConsoleAnswers, NetworkAnswers } from "./console-answers.ts";
import { checkKeeper, checkNewNetwork, checkProxy, type CheckParts } from "./console-checks.ts";
import { applyChanges, nameChanges, networkChanges, timeChanges, type MachineSystem } from "./machine-changes.ts";

const serviceUser = "watari-appliance";
const serviceUnit = "watari-appliance.service";
const startWaitMs = 60_000;
const startEveryMs = 500;

export interface ConsoleParts extends CheckParts {
  readonly stateFolder: string;
}

export interface Section {
  readonly section: "name" | "time" | "network" | "proxy";
  readonly run: () => Promise<readonly NetworkCheck[]>;
}

/** In their order. Each may be run again, with other answers as well. */
export function sectionsOf(answers: ConsoleAnswers, parts: ConsoleParts): readonly Section[] {
  const { name, timeServers, network, proxy } = answers;
  return [
    { section: "name", run: async () => await applyChanges(nameChanges(name), parts.system, parts.clock) },
    ...(timeServers === undefined ? [] : [{ section: "time" as const, run: async () => await settleTime(timeServers, parts) }]),
    ...(network === undefined ? [] : [{ section: "network" as const, run: async () => await settleNetwork(network, parts) }]),
    ...(proxy === undefined
      ? []
      : [
          {
            section: "proxy" as const,
            run: async () => {
              const password = await readPassword(proxy.passwordFile);
              return await checkProxy(proxy, { dnsServers: network?.dnsServers ?? [], password }, parts);
            },
          },
        ]),
  ];
}

export const hasFailed = (checks: readonly NetworkCheck[]): boolean => checks.some(({ verdict }) => verdict === "fail");

/** Until the first section that fails, unless it is to go on; what is told says what to do, and the same call works after it. */
export async function settleAll(
  answers: ConsoleAnswers,
  parts: ConsoleParts,
  onFailure: "stop" | "go on" = "stop",
): Promise<readonly NetworkCheck[]> {
  const all: NetworkCheck[] = [];
  for (const { run } of sectionsOf(answers, parts)) {
    const checks = await run();
    all.push(...checks);
    if (hasFailed(checks) && onFailure === "stop") break;
  }
  return all;
}

async function settleNetwork(network: NetworkAnswers, parts: ConsoleParts): Promise<readonly NetworkCheck[]> {
  const keeper = await checkKeeper(network, parts);
  if (keeper.verdict === "fail") return [keeper];
  const told = await announceMove(network, parts);
  const done = await applyChanges(networkChanges(network), parts.system, parts.clock);
  return hasFailed(done) ? [keeper, ...told, ...done] : [keeper, ...told, ...done, ...(await checkNewNetwork(network, parts))];
}

/** While the appliance still runs at its address of before, its agents are told the new one. */
async function announceMove({ address }: NetworkAnswers, { stateFolder }: ConsoleParts): Promise<readonly NetworkCheck[]> {
  const host = address?.split("/")[0];
  if (host === undefined) return [];
  try {
    const { known, unknown } = await callAppliance(stateFolder, "announce", { addresses: [host] });
    const others = unknown.length === 0 ? "" : `; not ${unknown.map(({ hostname }) => hostname).join(", ")}`;
    const answer = `${known.length} of ${known.length + unknown.length} agents know it${others}`.slice(0, 4000);
    const head = { id: "agents/told", role: "appliance", hop: "agents", to: host, tried: "tell the agents the new address", latencyMs: 0 };
    return known.length + unknown.length === 0 ? [] : [{ ...head, answer, verdict: unknown.length === 0 ? "pass" : "skipped" }];
  } catch (error) {
    if (error instanceof Fault && error.code === "ApplianceNotRunning") return []; // At the first boot there is none yet.
    throw error;
  }
}

async function settleTime(timeServers: readonly string[], { system, clock }: ConsoleParts): Promise<readonly NetworkCheck[]> {
  const done = await applyChanges(timeChanges(timeServers), system, clock);
  return hasFailed(done) ? done : [...done, await checkClockKept()];
}

async function readPassword(path: string | undefined): Promise<string | undefined> {
  if (path === undefined) return undefined;
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    throw new Fault("InputInvalid", "could not read the file with the proxy's password", { evidence: { path }, cause: error });
  });
  return text.replace(/\r?\n$/, "");
}

/** Keeps the appliance's settings: what was answered, over what was there before. A password that was typed comes before one in a file. */
export async function keepSettings(answers: ConsoleAnswers, stateFolder: string, proxyPassword?: string): Promise<ApplianceConfig> {
  const before = await loadConfig(stateFolder).catch((error: unknown) => {
    if (error instanceof Fault && error.code === "NotFound") return undefined;
    throw error;
  });
  await createStateFolder(stateFolder);
  const { name, network, proxy, setupPort } = answers;
  const all = machineAddresses();
  const own = all.filter(({ device }) => device !== "lo");
  // DHCP may have given others since.
  const stillOwn = (before?.listenAddresses ?? []).filter((address) => all.some((each) => each.address === address));
  const fixed = network?.address?.split("/")[0];
  const found = own.filter(({ device }) => device === (network?.device ?? device)).map(({ address }) => address);
  const listenAddresses =
    answers.listenAddresses ?? (fixed === undefined ? (stillOwn.length > 0 ? stillOwn : found.slice(0, 16)) : [fixed]);
  if (listenAddresses.length === 0)
    throw new Fault("InputInvalid", "this machine has no address that agents could reach; answer the network first");
  const file =
    proxy === undefined
      ? before?.proxyCredentialsFile
      : await keepProxyLogin(stateFolder, before?.proxyCredentialsFile, {
          userName: proxy.userName ?? "",
          password: proxyPassword ?? (await readPassword(proxy.passwordFile)),
        });
  const { proxyCredentialsFile: _file, ...rest } = before ?? {};
  const config = parseApplianceConfig({
    ...rest,
    ...{ name, listenAddresses, setupPort },
    ...(network === undefined ? {} : { dnsServers: network.dnsServers }),
    ...(proxy === undefined ? {} : { proxyUrl: proxy.url }),
    ...(file === undefined ? {} : { proxyCredentialsFile: file }),
  });
  await saveConfig(stateFolder, config);
  return config;
}

/** The service where the package brought one; undefined where the appliance has to be started by hand. */
export async function startService(
  stateFolder: string,
  system: MachineSystem,
  clock: Clock,
): Promise<AdminResponse<"setupPassword"> | undefined> {
  const unit = await system.run("systemctl", ["cat", serviceUnit]).catch(() => undefined); // No systemd here.
  if (unit?.exitCode !== 0) return undefined;
  const must = async (program: string, args: readonly string[]): Promise<void> => {
    const { exitCode, stderr } = await system.run(program, args);
    if (exitCode === 0) return;
    throw new Fault("StateConflict", `could not start the appliance: ${program} ${args.join(" ")} ended with ${exitCode}`, {
      evidence: { told: stderr.trim().slice(-1000) },
      action: `journalctl -u ${serviceUnit} says why`,
    });
  };
  await must("chown", ["-R", `${serviceUser}:${serviceUser}`, stateFolder]);
  await must("systemctl", ["enable", serviceUnit]);
  await must("systemctl", ["restart", serviceUnit]);
  return await newPassword(stateFolder, clock);
}

/** As soon as the appliance answers. */
async function newPassword(stateFolder: string, clock: Clock): Promise<AdminResponse<"setupPassword">> {
  const untilMs = clock.monotonicMs() + startWaitMs;
  for (;;) {
    try {
      return await callAppliance(stateFolder, "setupPassword", {});
    } catch (error) {
      if (!(error instanceof Fault) || error.code !== "ApplianceNotRunning" || clock.monotonicMs() > untilMs) throw error;
      await clock.sleep(startEveryMs);
    }
  }
}
