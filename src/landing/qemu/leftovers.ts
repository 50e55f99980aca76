// Looks for traces that removed machines may have left: folders, sockets, processes, taps and mounts.

import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { runCommand } from "../../base/run-command.ts";
import { machinePaths } from "./machine-record.ts";

const linksShape = z.array(z.object({ ifname: z.string().optional(), ifalias: z.string().optional() }));

/** One readable line per trace under `stateFolder` that belongs to none of `names`. */
export async function findLeftovers(stateFolder: string, names: readonly string[]): Promise<readonly string[]> {
  const machines = join(stateFolder, "machines");
  const folders = (await readdir(machines)).filter((name) => !names.includes(name)).map((name) => `folder ${join(machines, name)}`);
  const prefixes = names.map((name) => machinePaths(stateFolder, name).qmpSocket.replace(/qmp$/, ""));
  const sockets = (await readdir(join(stateFolder, "s")))
    .map((name) => join(stateFolder, "s", name))
    .filter((path) => !prefixes.some((prefix) => path.startsWith(prefix)))
    .map((path) => `socket ${path}`);
  const isForeign = (text: string) => text.includes(`${machines}/`) && !names.some((name) => text.includes(`${machines}/${name}/`));
  return [...folders, ...sockets, ...(await processes(isForeign)), ...(await taps(machines, names)), ...(await mounts(isForeign))];
}

async function processes(isForeign: (text: string) => boolean): Promise<readonly string[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name));
  const found: string[] = [];
  for (const pid of pids) {
    const commandLine = await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => ""); // It ended while we looked.
    if (isForeign(commandLine)) found.push(`process ${pid}: ${commandLine.split("\0")[0]}`);
  }
  return found;
}

async function taps(machines: string, names: readonly string[]): Promise<readonly string[]> {
  const { stdout } = await runCommand("ip", ["-j", "link", "show"]);
  return linksShape.parse(JSON.parse(stdout)).flatMap(({ ifname, ifalias }) => {
    const isOurs = ifalias?.startsWith(`watari ${machines}/`) === true;
    return isOurs && !names.some((name) => ifalias === `watari ${machines}/${name}`) ? [`network interface ${ifname}`] : [];
  });
}

async function mounts(isForeign: (text: string) => boolean): Promise<readonly string[]> {
  const text = await readFile("/proc/self/mounts", "utf8");
  return text.split("\n").flatMap((line) => {
    const path = line.split(" ")[1] ?? "";
    return isForeign(path) ? [`mount ${path}`] : [];
  });
}
