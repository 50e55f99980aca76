// Puts the agent onto a guest over SSH, waits until it speaks, and undoes every step when one fails; removes it likewise.

import { createReadStream } from "node:fs";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import type { Machine, MachineRegistry } from "../control/machine-registry.ts";
import { checkPrerequisites, isSameUuid, requirePrerequisites, type Finding } from "./prerequisites.ts";
import { quote, type SshSession } from "./ssh-session.ts";

export const program = "/opt/watari-agent";
export const freshProgram = "/opt/.watari-agent.fresh";
const state = "/var/lib/watari-agent";
export const unitFile = "/etc/systemd/system/watari-agent.service";
export const uploadMsMax = 900_000;
const firstPollMsMax = 60_000;
const lookAgainMs = 200;

/** Node needs libatomic; a guest without it gets the spare one by a wrapper in Node's place. */
export const useSpareLibrary = `mv spare lib
mv bin/node bin/node.real
printf '#!/bin/sh\nLD_LIBRARY_PATH=${program}/lib exec ${program}/bin/node.real "$@"\n' > bin/node
chmod 755 bin/node`;

export interface InstallOptions {
  readonly session: SshSession;
  /** For messages. */
  readonly host: string;
  readonly archivePath: string;
  readonly unitText: string;
  /** Address and control port of this appliance as the guest dials it. */
  readonly appliance: { readonly address: string; readonly controlPort: number; readonly dataPort: number };
  readonly authorityPem: string;
  readonly passphrase: string;
  /** SMBIOS UUID that the vCenter shows for the machine; undefined when no vCenter knows it. */
  readonly expectedUuid: string | undefined;
  readonly registry: MachineRegistry;
  readonly clock: Clock;
  readonly log: Log;
  readonly onStep: (percent: number, text: string) => void;
}

/** Checks first, then installs. Answers the machine once its agent has polled; on any fault the guest is as it was before. */
export async function installAgent(
  options: InstallOptions,
  signal?: AbortSignal,
): Promise<{ readonly machine: Machine; readonly findings: readonly Finding[] }> {
  const { session, host, appliance, onStep, clock } = options;
  onStep(5, `checking what ${host} has`);
  const back = { address: appliance.address, ports: [appliance.controlPort, appliance.dataPort] };
  const { findings, facts } = await checkPrerequisites(session, { back, nowMs: clock.nowMs() });
  if (options.expectedUuid !== undefined && facts.smbiosUuid !== "" && !isSameUuid(options.expectedUuid, facts.smbiosUuid)) {
    throw new Fault("GuestMismatch", `the machine that answers at ${host} is not the one that was chosen`, {
      evidence: { host, expectedUuid: options.expectedUuid, foundUuid: facts.smbiosUuid },
    });
  }
  requirePrerequisites(host, findings);
  if (facts.registeredWith !== undefined && facts.registeredWith !== appliance.address) {
    throw new Fault("AlreadyProtected", `an agent on ${host} works for another appliance`, {
      evidence: { host, otherAppliance: facts.registeredWith },
    });
  }
  const startedMs = clock.nowMs();
  try {
    await putFiles(options, facts.hasAtomicLibrary, signal);
    onStep(60, "registering the agent");
    await registerAndStart(options);
    onStep(80, "waiting for the agent's first poll");
    const machine = await waitFirstPoll(options, { ...facts, startedMs }, signal);
    return { machine, findings };
  } catch (error) {
    options.log.warn("agent installation is being undone", { host, reason: error instanceof Error ? error.message : String(error) });
    // What failed is the telling error; a guest that cannot be reached any more cannot be cleaned either.
    await removeAgent(session).catch((undoError: unknown) => {
      options.log.error("agent installation could not be undone", {
        host,
        reason: undoError instanceof Error ? undoError.message : "unknown",
      });
    });
    throw error;
  }
}

/** Removes the agent and everything it has put on the guest. Twice is fine. */
export async function removeAgent(session: SshSession): Promise<void> {
  await session.requireAsRoot(
    "remove the agent",
    `systemctl disable --now watari-agent >/dev/null 2>&1
rm -rf /sys/fs/bpf/watari ${program} ${freshProgram} ${state} ${unitFile}
systemctl daemon-reload
test ! -e ${program} && test ! -e ${state} && test ! -e ${unitFile}`,
  );
}

async function putFiles(options: InstallOptions, hasAtomicLibrary: boolean, signal?: AbortSignal): Promise<void> {
  const { session, onStep, archivePath, host } = options;
  onStep(15, `copying the agent to ${host}`);
  await session.requireAsRoot(
    "copy the agent",
    `set -e
systemctl disable --now watari-agent >/dev/null 2>&1 || true
rm -rf ${program} ${freshProgram} ${state}
mkdir -m 755 ${freshProgram}
cd ${freshProgram}
tar -xzf -
${hasAtomicLibrary ? "rm -rf spare" : useSpareLibrary}
mv ${freshProgram} ${program}
mkdir -m 700 -p ${state}`,
    {
      stdin: createReadStream(archivePath, { highWaterMark: 1 << 20 }),
      timeoutMs: uploadMsMax,
      ...(signal === undefined ? {} : { signal }),
    },
  );
  const put = async (path: string, mode: string, text: string): Promise<void> =>
    void (await session.requireAsRoot(`write ${path}`, `umask 077 && cat > ${quote(path)} && chmod ${mode} ${quote(path)}`, {
      stdin: text,
    }));
  await put(`${state}/appliance-authority.pem`, "600", options.authorityPem);
  await put(`${state}/passphrase`, "600", `${options.passphrase}\n`);
  await put(unitFile, "644", options.unitText);
}

async function registerAndStart({ session, appliance }: InstallOptions): Promise<void> {
  await session.requireAsRoot(
    "register the agent",
    `${program}/bin/node --disable-warning=ExperimentalWarning ${program}/agent.mjs register --state ${state} ` +
      `--appliance ${quote(`${appliance.address}:${appliance.controlPort}`)} --ca ${state}/appliance-authority.pem ` +
      `--passphrase-file ${state}/passphrase`,
  );
  await session.requireAsRoot("start the agent", "systemctl daemon-reload && systemctl enable --now watari-agent");
}

async function waitFirstPoll(
  { registry, clock, session, host }: InstallOptions,
  guest: { readonly smbiosUuid: string; readonly osMachineId: string; readonly startedMs: number },
  signal?: AbortSignal,
): Promise<Machine> {
  const endMs = clock.nowMs() + firstPollMsMax;
  for (;;) {
    const machine = registry.findByFacts(guest);
    if (machine?.state !== undefined && machine.seenAtMs >= guest.startedMs) return machine;
    if (clock.nowMs() > endMs) {
      const journal = await session.runAsRoot("journalctl -u watari-agent -n 20 --no-pager -o cat 2>&1");
      throw new Fault("AgentSilent", `the agent on ${host} was installed but did not speak within ${firstPollMsMax / 1000} s`, {
        evidence: { host, journal: journal.stdout.slice(-3000) },
      });
    }
    await clock.sleep(lookAgainMs, signal);
  }
}
