// Keeps packages from starting services while they are installed, in a way that undoes itself even after a crash.

import { existsSync, readFileSync } from "node:fs";
import { mkdir, rm, rmdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { PackageSystem } from "./packages.ts";

const mark = "# written by watari setup";

/**
 * Runs `task` while maintainer scripts may not start services (policy-rc.d, see deb-systemd-invoke(1p)) and PostgreSQL's
 * packages make no cluster. An operator's own policy is left as it is. What a crash leaves behind is void: the policy
 * ends, and removes itself, with the process that wrote it.
 */
export async function withServicesHeld<T>(root: string, task: () => Promise<T>): Promise<T> {
  const policy = join(root, "usr/sbin/policy-rc.d");
  const cluster = join(root, "etc/postgresql-common/createcluster.d/watari-setup.conf");
  const isOperators = existsSync(policy) && !readFileSync(policy, "utf8").includes(mark);
  if (!isOperators) await writeFileAtomic(policy, policyText(), { mode: 0o755 });
  await mkdir(dirname(cluster), { recursive: true });
  await writeFileAtomic(cluster, `${mark}, only while it installs\ncreate_main_cluster = false\n`, { mode: 0o644 });
  try {
    return await task();
  } finally {
    if (!isOperators) await rm(policy, { force: true });
    await rm(cluster, { force: true });
    for (const folder of [dirname(cluster), dirname(dirname(cluster))]) await removeWhenEmpty(folder);
  }
}

/** Takes back that newly installed packages start their services at the next boot; who wants one can enable it. */
export async function disableNewServices(names: readonly string[], system: PackageSystem): Promise<void> {
  if (!system.exists("/usr/bin/systemctl")) return;
  const listed = await system.run("dpkg-query", ["-L", ...names]);
  const units = listed.stdout
    .split("\n")
    .flatMap((path) => /\/systemd\/system\/([^/@]+\.(?:service|socket|timer|path|target))$/.exec(path)?.[1] ?? []);
  // What systemctl answers is not needed: a unit without an [Install] section cannot be disabled and does not start.
  if (units.length > 0) await system.run("systemctl", ["disable", "--quiet", ...new Set(units)]);
}

/** Denies (101) while this very process lives; afterwards allows and removes itself. */
function policyText(): string {
  const startTicks = readFileSync("/proc/self/stat", "utf8")
    .replace(/^.*\) /s, "")
    .split(" ")[19];
  return [
    "#!/bin/sh",
    `${mark}, only while it installs: no service starts by surprise`,
    `ticks=$(sed 's/^.*) //' /proc/${process.pid}/stat 2>/dev/null | cut -d ' ' -f 20)`,
    `[ "$ticks" = "${startTicks}" ] && exit 101`,
    'rm -f -- "$0"',
    "exit 0",
    "",
  ].join("\n");
}

async function removeWhenEmpty(folder: string): Promise<void> {
  try {
    await rmdir(folder);
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code !== "ENOTEMPTY" && code !== "EEXIST" && code !== "ENOENT") throw error;
  }
}
