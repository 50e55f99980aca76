// What each step of the set-up does: change the settings or call what the command line calls, try it, and keep what was found.

import { isIP } from "node:net";
import { systemClock, toTimestamp, type Clock } from "../../base/clock.ts";
import type { SetupRequest, SetupResponse, SetupRoute, SetupState } from "../../contract/appliance-setup.ts";
import type { SetupStep } from "../../contract/setup-steps.ts";
import { Fault } from "../../contract/errors.ts";
import { networkChecksMax, type NetworkCheck } from "../../contract/network-check.ts";
import type { CheckResult } from "../../connectivity/probe.ts";
import { PathOpener } from "../../connectivity/path-opener.ts";
import { createHandlers } from "../admin/admin-server.ts";
import { addressesOf } from "../control/way-book.ts";
import type { ApplianceHost } from "../appliance-host.ts";
import { checkPart, parseRegistrationKey, pathOptions, type WayPart } from "../identity/hub-registration.ts";
import { parseHostsText, toHostsText } from "./hosts-text.ts";
import { keepProxyLogin } from "./proxy-credentials.ts";
import { attempt, checkClockKept, checkNetwork, failed } from "./setup-checks.ts";
import { noteResult, readProgress, writeProgress } from "./setup-progress.ts";
import { knownKey, privateNamesOf, setupStateOf, setupStatuses } from "./setup-state.ts";

type Action = Exclude<SetupRoute, "session" | "signIn" | "signOut" | "components">;
type Answer<Name extends Action> = SetupResponse<Name>;
export type SetupActions = { readonly [Name in Action]: (request: SetupRequest<Name>, signal: AbortSignal) => Promise<Answer<Name>> };

/** The step that has to be open for an action; the others are always there. */
const stepOf: Partial<Record<Action, SetupStep>> = {
  saveNetwork: "network",
  saveNames: "names",
  saveProxy: "proxy",
  checkTime: "time",
  register: "registration",
  addVcenter: "vcenter",
  skipVcenter: "vcenter",
  addCredential: "credentials",
  tryCredential: "credentials",
  confirmCredentials: "credentials",
  checkAll: "check",
};

export function requireOpen(host: ApplianceHost, action: Action): void {
  const step = stepOf[action];
  if (step === undefined) return;
  const statuses = setupStatuses(host.current);
  if (statuses[step] !== "later") return;
  const current = Object.entries(statuses).find(([, status]) => status === "current")?.[0] ?? "";
  throw new Fault("StateConflict", `could not do the step ${step}: the step ${current} comes before it`, {
    evidence: { current },
    causes: ["another window of the browser went back"],
    action: "load the page again; it opens at the step that comes next",
  });
}

export function createSetupActions(host: ApplianceHost, clock: Clock = systemClock): SetupActions {
  const state = async (): Promise<SetupState> => await setupStateOf(host.current, clock);
  const note = (step: SetupStep, checks: readonly NetworkCheck[]): void =>
    noteResult(host.current.facts, step, { at: toTimestamp(clock.nowMs()), checks: checks.slice(0, networkChecksMax) });
  return {
    ...createSettingActions(host, { clock, state, note }),
    ...createSiteActions(host, { clock, state, note }),
    state,
    passphrase: async () => await Promise.resolve({ passphrase: host.current.authority.passphrase }),
  };
}

interface StepParts {
  readonly clock: Clock;
  readonly state: () => Promise<SetupState>;
  readonly note: (step: SetupStep, checks: readonly NetworkCheck[]) => void;
}

type SettingAction = "saveNetwork" | "saveNames" | "hostsFile" | "saveProxy" | "checkTime";

function createSettingActions(host: ApplianceHost, { clock, state, note }: StepParts): Pick<SetupActions, SettingAction> {
  return {
    saveNetwork: async ({ name, listenAddresses, advertiseAddress }) => {
      const fault = await host.changeConfig(({ advertiseAddress: _before, ...config }) => ({
        ...config,
        ...{ name, listenAddresses },
        ...(advertiseAddress === "" ? {} : { advertiseAddress }),
      }));
      const ports = { id: "ports/listen", hop: "listen", to: listenAddresses.join(" "), tried: "start the appliance on these addresses" };
      const farAddresses = (knownKey(host.current)?.privateRanges ?? []).map((range) => range.split("/")[0] ?? "");
      const { controlPort } = host.current.ports;
      note("network", [
        ...(await checkNetwork({ listenAddresses, farAddresses }, clock)),
        fault === undefined ? await attempt(clock, ports, async () => await Promise.resolve(`port ${controlPort}`)) : failed(ports, fault),
        ...(fault === undefined ? toldAgents(host) : []),
      ]);
      return await state();
    },
    saveNames: async ({ hostsText, dnsServers, registrationKey }, signal) => {
      const hosts = hostsText === undefined ? undefined : parseHostsText(hostsText);
      if (registrationKey !== undefined) keepKey(host, registrationKey);
      const fault = await host.changeConfig((config) => ({ ...config, dnsServers, ...(hosts === undefined ? {} : { hosts }) }));
      if (fault !== undefined) throw fault;
      if (knownKey(host.current) !== undefined) note("names", await checkKnown(host, "names", signal));
      return await state();
    },
    hostsFile: async (_request, signal) => ({ text: await hostsFileOf(host, signal) }),
    saveProxy: async ({ url, userName, password }, signal) => {
      const { stateFolder, current } = host;
      const present = current.config.proxyCredentialsFile;
      const file = url === "" ? undefined : await keepProxyLogin(stateFolder, present, { userName, password });
      const fault = await host.changeConfig(({ proxyUrl: _url, proxyCredentialsFile: _file, ...config }) => ({
        ...config,
        ...(url === "" ? {} : { proxyUrl: url }),
        ...(file === undefined ? {} : { proxyCredentialsFile: file }),
      }));
      if (fault !== undefined) throw fault;
      note("proxy", await checkKnown(host, "public", signal));
      return await state();
    },
    checkTime: async (_request, signal) => {
      note("time", [await checkClockKept(), ...(await checkKnown(host, "clock", signal))]);
      return await state();
    },
  };
}

/** Who heard of a move before it was made. */
function toldAgents({ announcement, current }: ApplianceHost): readonly NetworkCheck[] {
  if (announcement === undefined || announcement.known.length + announcement.unknown.length === 0) return [];
  const { known, unknown } = announcement;
  const address = addressesOf(current.config)[0] ?? "";
  const head = { id: "agents/told", role: "appliance", hop: "agents", to: address, tried: "tell the agents the new address", latencyMs: 0 };
  const answer = `${known.length} of ${known.length + unknown.length} agents were told before the change`;
  if (unknown.length === 0) return [{ ...head, answer, verdict: "pass" }];
  const names = unknown.slice(0, 20).map(({ facts }) => facts.hostname);
  const repair = `in each of these guests: agent way --appliance ${address}:${current.ports.controlPort}`;
  return [{ ...head, answer: `${answer}; not ${names.join(", ")}`, verdict: "skipped", repair }];
}

type SiteAction = "register" | "addVcenter" | "skipVcenter" | "addCredential" | "tryCredential" | "confirmCredentials" | "checkAll";

function createSiteActions(host: ApplianceHost, { clock, state, note }: StepParts): Pick<SetupActions, SiteAction> {
  const handlers = (): ReturnType<typeof createHandlers> => createHandlers(host.current);
  return {
    register: async (_request, signal) => {
      const registrationKey = host.current.facts.read("setupKey");
      if (registrationKey === undefined) return await state();
      const checks = await checkKnown(host, "all", signal);
      const tried = {
        id: "registration/key",
        hop: "register",
        to: knownKey(host.current)?.vaultResourceId ?? "",
        tried: "use the registration key",
      };
      const isOpen = checks.every(({ verdict }) => verdict !== "fail");
      const use = async (): Promise<string> => `registered as ${(await handlers().register({ registrationKey })).applianceId}`;
      note("registration", isOpen ? [...checks, await attempt(clock, tried, use)] : checks);
      // It works once, so that nothing is lost with it; while it was not used it stays for the next try.
      if (host.current.registration !== undefined) host.current.facts.remove("setupKey");
      return await state();
    },
    addVcenter: async ({ userName, password, ...vcenter }) => {
      await handlers().addCredential({ name: vcenter.name, kind: "vcenter", userName, privilege: "root", secret: password });
      await handlers().addVcenter({ ...vcenter, credential: vcenter.name });
      await handlers().discover({});
      return await state();
    },
    skipVcenter: async () => {
      writeProgress(host.current.facts, { ...readProgress(host.current.facts), hasNoVcenter: true });
      return await state();
    },
    addCredential: async (credential) => {
      await handlers().addCredential(credential);
      return await state();
    },
    tryCredential: async ({ credential, address }, signal) => ({
      machine: await host.current.guests.tryLogin(address, credential, signal),
    }),
    confirmCredentials: async () => {
      writeProgress(host.current.facts, { ...readProgress(host.current.facts), areCredentialsConfirmed: true });
      return await state();
    },
    checkAll: async (_request, signal) => {
      note("check", await host.current.checkWays(signal));
      return await state();
    },
  };
}

/** A key is kept sealed until it is used. Throws InputInvalid; KeyExpired before anything is kept. */
function keepKey(host: ApplianceHost, text: string): void {
  const key = parseRegistrationKey(text);
  const { registration } = host.current;
  if (registration !== undefined && registration.key.vaultId !== key.vaultId) {
    throw new Fault("StateConflict", "this appliance is registered in another vault", {
      evidence: { vault: registration.key.vaultResourceId },
      action: "set up another appliance for the other vault",
    });
  }
  if (registration === undefined) host.current.facts.write("setupKey", text);
}

async function checkKnown({ current }: ApplianceHost, part: WayPart, signal: AbortSignal): Promise<readonly CheckResult[]> {
  const key = knownKey(current);
  if (key === undefined) throw new Fault("ApplianceNotRegistered", "could not check a way: no registration key was given");
  return await checkPart(key, part, current.registrationParts, signal);
}

/** What answers now; a name without an answer is a remark, so that nobody takes the file for complete. */
async function hostsFileOf({ current }: ApplianceHost, signal: AbortSignal): Promise<string> {
  const key = knownKey(current);
  if (key === undefined) return toHostsText(current.config.hosts);
  const opener = new PathOpener(pathOptions(key, current.registrationParts));
  const lines = await Promise.all(
    privateNamesOf(key).map(async (name) => {
      if (isIP(name) !== 0) return "";
      const decision = opener.allow(name);
      if (decision.kind === "proxy") return `# ${name} goes by the proxy\n`;
      const found = await opener.resolve(decision, signal).catch(() => undefined); // Said in the file.
      return found === undefined ? `# ${name} has no private answer\n` : toHostsText([{ name, addresses: found.addresses }]);
    }),
  );
  return lines.join("");
}
