// Tells an installed agent another appliance: it registers anew and keeps its log of changes; on a fault it goes back to the one before.

import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";
import { program } from "./install.ts";
import { quote, type SshSession } from "./ssh-session.ts";

const state = "/var/lib/watari-agent";
/** What names the appliance; the log of changes and the orders are other files and stay. */
const identityFiles = "identity.json key.pem certificate.pem authority.pem";
const before = `${state}/.before`;
const spokenMsMax = 60_000;
const lookAgainMs = 200;

export interface AdoptOptions {
  readonly session: SshSession;
  /** For messages. */
  readonly host: string;
  readonly machineId: MachineId;
  readonly appliance: { readonly address: string; readonly controlPort: number };
  readonly authorityPem: string;
  readonly passphrase: string;
  readonly registry: MachineRegistry;
  readonly clock: Clock;
  readonly log: Log;
  readonly onStep: (percent: number, text: string) => void;
}

/** Done when the agent has polled here. May be called again, also after it was cut off at any line. */
export async function adoptAgent(options: AdoptOptions, signal?: AbortSignal): Promise<void> {
  const { session, onStep, log, host } = options;
  await session.requireAsRoot("find the agent", `test -d ${program} && test -e ${state}/identity.json`);
  const startedMs = options.clock.nowMs();
  try {
    onStep(20, `registering the agent on ${host} here`);
    await register(options);
    onStep(60, "waiting for the agent's first poll");
    await waitSpoken(options, startedMs, signal);
    await session.requireAsRoot("forget the appliance before", `rm -rf ${before} ${state}/passphrase`);
  } catch (error) {
    log.warn("the agent goes back to its appliance of before", { host, reason: error instanceof Error ? error.message : String(error) });
    await goBack(session).catch((undoError: unknown) => {
      log.error("the agent could not be given back", { host, reason: undoError instanceof Error ? undoError.message : "unknown" });
    });
    throw error;
  }
}

/** What an earlier try put aside stays the one before. */
async function register({ session, appliance, authorityPem, passphrase }: AdoptOptions): Promise<void> {
  await session.requireAsRoot(
    "stop the agent",
    `set -e
systemctl stop watari-agent
cd ${state}
test -d ${before} || { mkdir -m 700 ${before}.fresh; for file in ${identityFiles}; do test ! -e $file || cp -p $file ${before}.fresh/; done; mv ${before}.fresh ${before}; }`,
  );
  const put = async (path: string, text: string): Promise<void> =>
    void (await session.requireAsRoot(`write ${path}`, `umask 077 && cat > ${quote(path)}`, { stdin: text }));
  await put(`${state}/appliance-authority.pem`, authorityPem);
  await put(`${state}/passphrase`, `${passphrase}\n`);
  await session.requireAsRoot(
    "register the agent",
    `${program}/bin/node --disable-warning=ExperimentalWarning ${program}/agent.mjs register --state ${state} ` +
      `--appliance ${quote(`${appliance.address}:${appliance.controlPort}`)} --ca ${state}/appliance-authority.pem ` +
      `--passphrase-file ${state}/passphrase`,
  );
  await session.requireAsRoot("start the agent", "systemctl start watari-agent");
}

async function waitSpoken(
  { registry, machineId, clock, host, session }: AdoptOptions,
  startedMs: number,
  signal?: AbortSignal,
): Promise<void> {
  const endMs = clock.nowMs() + spokenMsMax;
  for (;;) {
    const machine = registry.find(machineId);
    if (machine?.state !== undefined && machine.seenAtMs >= startedMs) return;
    if (clock.nowMs() > endMs) {
      const journal = await session.runAsRoot("journalctl -u watari-agent -n 20 --no-pager -o cat 2>&1");
      throw new Fault("AgentSilent", `the agent on ${host} did not speak here within ${spokenMsMax / 1000} s`, {
        evidence: { host, journal: journal.stdout.slice(-3000) },
      });
    }
    await clock.sleep(lookAgainMs, signal);
  }
}

async function goBack(session: SshSession): Promise<void> {
  await session.requireAsRoot(
    "give the agent back",
    `systemctl stop watari-agent
rm -rf ${before}.fresh ${state}/passphrase
if test -d ${before}; then cp -p ${before}/* ${state}/ && rm -rf ${before}; fi
systemctl start watari-agent`,
  );
}
