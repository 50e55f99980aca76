// One run of an operator's own program that says whether a landed machine is well: exit code 0 is yes, and what it printed is kept.

import { isAbsolute } from "node:path";
import { tryCommand } from "../base/run-command.ts";
import { Fault } from "../contract/errors.ts";

export interface ScriptRun {
  /** Path of a program of this host. */
  readonly program: string;
  /** Of the machine. */
  readonly name: string;
  readonly addresses: readonly string[];
  readonly secondsMax: number;
  /** Words before the program's: what enters the machine's network. */
  readonly entry?: readonly string[];
}

const outputBytesMax = 64 << 10;
const shownCharactersMax = 4000;

/** The program gets the machine's name and addresses in its environment, and nothing of this program's own. Killed when its time is over. */
export async function runProbeScript(
  { program, name, addresses, secondsMax, entry = [] }: ScriptRun,
  signal?: AbortSignal,
): Promise<{ readonly kind: "answered"; readonly body: string } | { readonly kind: "silent"; readonly reason: string }> {
  if (!isAbsolute(program))
    throw new Fault("InputInvalid", "could not run a probe: its program has no absolute path", { evidence: { program } });
  const [first, ...rest]: [string, ...string[]] = entry[0] === undefined ? [program] : [entry[0], ...entry.slice(1), program];
  const env = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C", WATARI_MACHINE: name, WATARI_ADDRESSES: addresses.join(" ") };
  const timeoutMs = Math.max(1, Math.ceil(secondsMax * 1000));
  try {
    const options = { env, timeoutMs, outputBytesMax, ...(signal === undefined ? {} : { signal }) };
    const { exitCode, stdout, stderr } = await tryCommand(first, rest, options);
    if (exitCode === 0) return { kind: "answered", body: stdout };
    const said = `${stdout}\n${stderr}`.trim().slice(-shownCharactersMax);
    return { kind: "silent", reason: `its program ended with ${exitCode}: ${said === "" ? "it said nothing" : said}` };
  } catch (error) {
    signal?.throwIfAborted();
    throw new Fault("LandingFailed", "could not run the program of a probe", { evidence: { program }, cause: error });
  }
}
