// Hydrates a proof's guest twice on fresh overlays, without booting it: what a first launch takes, and one of a guest that is known.

import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock as clock } from "../../../src/base/clock.ts";
import { runCommand } from "../../../src/base/run-command.ts";
import { ensureHelperImage } from "../../../src/landing/helper/helper-image.ts";
import { openDriverPlans } from "../../../src/landing/hydration/driver-plans.ts";
import { hydrate } from "../../../src/landing/hydration/hydrate.ts";
import { openRawView } from "../../../src/landing/hydration/raw-view.ts";
import { virtioHardware } from "../../../src/landing/qemu/machine.ts";
import { guestDisks } from "./build-guests.ts";
import { cardsOf, luksKey, type BootGuest } from "./guests.ts";

const rounds = ["first", "later"] as const;

/** One line per round. Seconds of all processes' processors, and by the clock. */
export async function measureHydration(cacheFolder: string, guest: BootGuest): Promise<readonly string[]> {
  const folder = await mkdtemp(join(tmpdir(), "wm-"));
  try {
    const lines: string[] = [];
    for (const round of rounds) {
      const [startedMs, startedCpu] = [clock.monotonicMs(), await cpuSeconds()];
      const count = await hydrateOnce(cacheFolder, guest, { folder, round });
      const [wall, cpu] = [(clock.monotonicMs() - startedMs) / 1000, (await cpuSeconds()) - startedCpu];
      lines.push(`${guest.name}: ${round} hydration ${cpu.toFixed(1)} CPU s, ${wall.toFixed(1)} s by the clock, ${count} changes`);
    }
    return lines;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

interface Place {
  readonly folder: string;
  readonly round: string;
}

async function hydrateOnce(cacheFolder: string, guest: BootGuest, { folder, round }: Place): Promise<number> {
  const scratchFolder = join(folder, round);
  await mkdir(scratchFolder);
  const graphs: { readonly nodes: readonly object[]; readonly topNode: string }[] = [];
  for (const [index, path] of guestDisks(cacheFolder, guest).entries()) {
    const overlay = join(folder, `${round}-${index}.qcow2`);
    await runCommand("qemu-img", ["create", "-q", "-f", "qcow2", "-b", path, "-F", "raw", overlay]);
    const nodes = [
      { driver: "file", filename: path, "node-name": `point${index}`, "read-only": true },
      { driver: "file", filename: overlay, "node-name": `file${index}` },
      { driver: "qcow2", file: `file${index}`, "node-name": `disk${index}`, backing: `point${index}` },
    ];
    graphs.push({ nodes, topNode: `disk${index}` });
  }
  await using view = await openRawView({ graphs, folder: scratchFolder, clock });
  const { changes } = await hydrate({
    ...{ imagePaths: view.paths, bootDiskIndex: 0, nics: cardsOf(guest), hardware: virtioHardware, scratchFolder, hasSerialConsole: true },
    helperImage: async () => await ensureHelperImage(cacheFolder),
    plans: openDriverPlans(join(folder, "plans"), clock),
    ...(guest.layout === "luks" ? { unlockKeys: [Buffer.from(luksKey)] } : {}),
    clock,
  });
  return changes.length;
}

/** Of this process and of those that it has waited for. */
async function cpuSeconds(): Promise<number> {
  const words = (await readFile("/proc/self/stat", "utf8")).replace(/^.*\) /s, "").split(" ");
  return words.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks), 0) / 100;
}
