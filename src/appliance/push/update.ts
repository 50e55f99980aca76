// Puts another agent in the place of the one on a guest: state and registration stay, and the old agent comes back when the new one is silent.

import { createReadStream } from "node:fs";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import type { MachineRegistry } from "../control/machine-registry.ts";
import { freshProgram, program, unitFile, uploadMsMax, useSpareLibrary } from "./install.ts";
import { quote, type SshSession } from "./ssh-session.ts";

const oldProgram = "/opt/.watari-agent.old";
const oldUnitFile = "/opt/.watari-agent.old.service";
const spokenMsMax = 90_000;
const lookAgainMs = 200;
/** A service that is not active at two looks in a row, a second apart, has ended; one look may fall into its restart. */
const looksPerState = 5;
const deadLooksMax = 2;

export interface UpdateOptions {
  readonly session: SshSession;
  /** For messages. */
  readonly host: string;
  readonly machineId: MachineId;
  readonly archivePath: string;
  readonly unitText: string;
  readonly registry: MachineRegistry;
  readonly clock: Clock;
  readonly log: Log;
  readonly onStep: (percent: number, text: string) => void;
}

/** Answers the version that the new agent told. May be called again, also after it was cut off at any line. */
export async function updateAgent(options: UpdateOptions, signal?: AbortSignal): Promise<{ readonly agentVersion: string }> {
  const { session, host, onStep, log } = options;
  onStep(10, `copying the agent to ${host}`);
  await copyFresh(options, signal);
  onStep(60, "starting the new agent");
  try {
    const startedMs = await exchange(options);
    onStep(80, "waiting for the new agent's first poll");
    const agentVersion = await waitSpoken(options, startedMs, signal);
    await session.requireAsRoot("remove the old agent", `rm -rf ${oldProgram} ${oldUnitFile}`);
    return { agentVersion };
  } catch (error) {
    log.warn("agent update is being undone", { host, reason: error instanceof Error ? error.message : String(error) });
    // What failed is the telling error; a guest that cannot be reached keeps the old agent beside the new one.
    await bringBack(session).catch((undoError: unknown) => {
      log.error("agent update could not be undone", { host, reason: undoError instanceof Error ? undoError.message : "unknown" });
    });
    throw error;
  }
}

/** The running agent is not touched yet; a guest without one is refused before anything is copied. */
async function copyFresh({ session, archivePath }: UpdateOptions, signal?: AbortSignal): Promise<void> {
  await session.requireAsRoot(
    "find the agent to update",
    `test -d ${program} || test -d ${oldProgram}; test -e ${unitFile} || test -e ${oldUnitFile}`,
  );
  await session.requireAsRoot(
    "copy the agent",
    `set -e
rm -rf ${freshProgram}
mkdir -m 755 ${freshProgram}
cd ${freshProgram}
tar -xzf -
if test -e ${program}/bin/node.real || test -e ${oldProgram}/bin/node.real; then
${useSpareLibrary}
else rm -rf spare; fi`,
    {
      stdin: createReadStream(archivePath, { highWaterMark: 1 << 20 }),
      timeoutMs: uploadMsMax,
      ...(signal === undefined ? {} : { signal }),
    },
  );
}

/** What an earlier try left aside stays the old agent: the present one was never heard of. Answers a time at which neither ran. */
async function exchange({ session, unitText, clock }: UpdateOptions): Promise<number> {
  await session.requireAsRoot(
    "exchange the agent",
    `set -e
test -d ${oldProgram} || test ! -d ${program} || { cp -p ${unitFile} ${oldUnitFile}; systemctl disable --now watari-agent >/dev/null 2>&1 || true; mv ${program} ${oldProgram}; }
systemctl disable --now watari-agent >/dev/null 2>&1 || true
rm -rf ${program}
mv ${freshProgram} ${program}`,
  );
  await session.requireAsRoot(`write ${unitFile}`, `umask 077 && cat > ${quote(unitFile)} && chmod 644 ${quote(unitFile)}`, {
    stdin: unitText,
  });
  const stoppedMs = clock.nowMs();
  await session.requireAsRoot("start the agent", "systemctl daemon-reload && systemctl enable --now watari-agent");
  return stoppedMs;
}

async function waitSpoken(
  { registry, machineId, clock, session, host }: UpdateOptions,
  startedMs: number,
  signal?: AbortSignal,
): Promise<string> {
  const endMs = clock.nowMs() + spokenMsMax;
  let deadLooks = 0;
  for (let look = 1; ; look++) {
    const machine = registry.get(machineId);
    if (machine.seenAtMs >= startedMs) return machine.agentVersion;
    if (look % looksPerState === 0) {
      const { stdout } = await session.runAsRoot("systemctl is-active watari-agent");
      deadLooks = stdout.startsWith("activ") ? 0 : deadLooks + 1;
    }
    if (clock.nowMs() > endMs || deadLooks >= deadLooksMax) {
      const journal = await session.runAsRoot("journalctl -u watari-agent -n 20 --no-pager -o cat 2>&1");
      throw new Fault(
        "AgentSilent",
        `the new agent on ${host} ${deadLooks >= deadLooksMax ? "ended" : `did not speak within ${spokenMsMax / 1000} s`}`,
        {
          evidence: { host, journal: journal.stdout.slice(-3000) },
        },
      );
    }
    await clock.sleep(lookAgainMs, signal);
  }
}

async function bringBack(session: SshSession): Promise<void> {
  await session.requireAsRoot(
    "bring the old agent back",
    `rm -rf ${freshProgram}
test -d ${oldProgram} || exit 0
systemctl disable --now watari-agent >/dev/null 2>&1 || true
rm -rf ${program} && mv ${oldProgram} ${program} && cp -p ${oldUnitFile} ${unitFile} && rm -f ${oldUnitFile}
systemctl daemon-reload && systemctl enable --now watari-agent`,
  );
}
