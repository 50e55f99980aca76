// The lab's vCenter: VMware's simulator, built once into the cache, serving the lab's machines.

import { createHash } from "node:crypto";
import { access, mkdir, readdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../src/base/run-command.ts";
import { onprem, siteDomain } from "./addresses.ts";
import type { LabAuthority } from "./certificates.ts";
import type { LabMachine } from "./machine.ts";
import type { LabPlace } from "./place.ts";
import { labExec, startDaemon, waitUntil } from "./processes.ts";
import { takeLock } from "./lock.ts";

export const vcenterUser = "administrator@vsphere.local";
export const vcenterName = `vcenter.${siteDomain}`;

const sourceFolder = join(import.meta.dirname, "vcsim");
const govmomiFolder = "/usr/share/gocode";
const buildMaxMs = 10 * 60_000;

/** Builds the simulator when the cache has none of today's source; answers the program's path. */
export async function vcenterProgram(cacheFolder: string, progress: (text: string) => void): Promise<string> {
  const hash = createHash("sha256");
  for (const name of (await readdir(sourceFolder)).toSorted()) hash.update(name).update(await readFile(join(sourceFolder, name)));
  const folder = join(cacheFolder, "vcsim");
  const program = join(folder, hash.digest("hex").slice(0, 16));
  if (await exists(program)) return program;
  await mkdir(folder, { recursive: true });
  await using _lock = await takeLock({ name: `build/${program}`, waitMaxMs: buildMaxMs });
  if (await exists(program)) return program;
  progress("vcenter: building VMware's simulator (once)");
  const env = { ...process.env, GO111MODULE: "off", GOPATH: govmomiFolder, GOCACHE: join(cacheFolder, "go-build") };
  await runCommand("go", ["build", "-trimpath", "-o", `${program}.fresh`, "."], { cwd: sourceFolder, env, timeoutMs: buildMaxMs });
  await rename(`${program}.fresh`, program);
  return program;
}

export interface VcenterOptions {
  readonly place: LabPlace;
  readonly program: string;
  readonly authority: LabAuthority;
  readonly passwordFile: string;
  readonly machines: readonly LabMachine[];
}

/** Starts the vCenter in the site and returns when it answers. Its inventory is fixed; power states follow the machines. */
export async function startVcenter(options: VcenterOptions): Promise<void> {
  const { place } = options;
  const files = { certificateFile: `${place.stateFolder}/vcenter.crt`, keyFile: `${place.stateFolder}/vcenter.key` };
  await options.authority.issue(files, [vcenterName], [onprem.vcenter]);
  const configuration = {
    listen: `${onprem.vcenter}:443`,
    certificate: files.certificateFile,
    key: files.keyFile,
    user: vcenterUser,
    passwordFile: options.passwordFile,
    machines: options.machines.map(toInventory),
  };
  const file = `${place.stateFolder}/vcenter.json`;
  await writeFile(file, JSON.stringify(configuration), { mode: 0o600 });
  const env = { TMPDIR: place.diskFolder };
  await startDaemon({ place, zone: "onprem", name: "vcenter", argv: [options.program, "-config", file], env });
  await waitUntil("the vCenter", 60_000, async () => {
    const probe = await labExec(place, "onprem", ["bash", "-c", `exec 3<>/dev/tcp/${onprem.vcenter}/443`]);
    return probe.exitCode === 0;
  });
}

function toInventory(machine: LabMachine): Readonly<Record<string, unknown>> {
  const { name, hostName, smbiosUuid, instanceUuid, mac, address, cpuCount, memoryMiB, argv, qmpSocket, pidFile } = machine;
  const disks = machine.disks.map(({ label, sizeBytes, uuid }) => ({ label, sizeBytes, uuid }));
  return { name, hostName, smbiosUuid, instanceUuid, mac, address, cpuCount, memoryMiB, disks, argv, qmpSocket, pidFile };
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}
