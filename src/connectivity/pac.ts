// What a proxy auto-configuration file answers for hosts: asked of Mozilla's own engine, in a process of its own.

import { tryCommand } from "../base/run-command.ts";
import { Fault } from "../contract/errors.ts";

/** Debian's own: its packages are not seen by any other Python that may come first. */
const python = "/usr/bin/python3";
const engineMsMax = 10_000;
const program = `import json,pacparser,sys
pacparser.init()
pacparser.parse_pac_file(sys.argv[1])
print(json.dumps({h: pacparser.find_proxy('https://'+h+'/', h) for h in json.load(sys.stdin)}))`;

/** By host. A file that is no PAC file, or an engine that is not there, is a Fault. */
export async function askPac(file: string, hosts: readonly string[]): Promise<ReadonlyMap<string, string>> {
  const { exitCode, stdout, stderr } = await tryCommand(python, ["-c", program, file], {
    stdin: JSON.stringify([...new Set(hosts)]),
    timeoutMs: engineMsMax,
  });
  if (stderr.includes("No module named"))
    throw new Fault("MissingProgram", "could not ask the PAC file: no engine for it is installed", {
      action: "install Debian's package python3-pacparser, or take pacFile out of the plan",
    });
  if (exitCode !== 0)
    throw new Fault("InputInvalid", `could not ask the PAC file ${file}`, {
      evidence: { file, engine: stderr.trim().split("\n").slice(-3) },
      action: "mend the file; `watari net render pac` writes one that fits the plan",
    });
  const answers: unknown = JSON.parse(stdout);
  if (typeof answers !== "object" || answers === null) throw new Fault("Internal", "the PAC engine answered something else");
  return new Map(Object.entries(answers).map(([host, answer]) => [host, String(answer)]));
}

/** Whether the first way that the answer names is the one that was decided: directly, or by this proxy. Pure. */
export function isPacAnswerRight(answer: string, proxyUrl: string | undefined): boolean {
  const [first = ""] = answer.split(";");
  const [word = "", place = ""] = first.trim().split(/\s+/);
  if (proxyUrl === undefined) return word.toUpperCase() === "DIRECT";
  const { protocol, hostname, port } = new URL(proxyUrl);
  const isTls = protocol === "https:";
  const wanted = `${hostname}:${port === "" ? (isTls ? 443 : 80) : port}`;
  return (isTls ? ["HTTPS"] : ["PROXY", "HTTP"]).includes(word.toUpperCase()) && place.toLowerCase() === wanted;
}
