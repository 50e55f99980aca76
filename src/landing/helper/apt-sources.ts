// Where packages come from: the host's own apt sources and settings, handed on to the guest image's builder.

import { tryCommand } from "../../base/run-command.ts";
import { Fault } from "../../contract/errors.ts";

/** The host's own sources of a release, as lines for mmdebstrap: they work wherever its ordinary apt works. */
export async function hostAptSources(suite: string): Promise<string> {
  const format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)";
  const listed = await tryCommand("apt-get", ["indextargets", "--format", format, "Created-By: Packages"]);
  const suites = new Set([suite, `${suite}-updates`, `${suite}-security`, `${suite}/updates`]);
  const lines = new Set<string>();
  for (const row of listed.stdout.split("\n")) {
    const [uri = "", release = "", component = "", signedBy = ""] = row.split("|");
    if (!suites.has(release) || component !== "main") continue;
    const key = signedBy.startsWith("/") ? ` [signed-by=${signedBy}]` : "";
    lines.add(`deb${key} ${uri} ${release} ${component}`);
  }
  if (lines.size === 0)
    throw new Fault("MissingProgram", `could not find a package source of Debian ${suite}: this machine's apt names none`, {
      action: `add a source of ${suite} to /etc/apt/sources.list.d, run apt-get update, and call again`,
      evidence: { suite },
    });
  return `${[...lines].join("\n")}\n`;
}

/** The host's apt settings about reaching its sources: proxies, certificates, checks of dates. */
export async function hostAptSettings(): Promise<readonly string[]> {
  const dump = await tryCommand("apt-config", ["dump", "--no-empty"]);
  return dump.stdout.split("\n").filter((row) => /^Acquire::(https?|ftp|Retries|Check-)/i.test(row));
}
