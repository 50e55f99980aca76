// Chooses QEMU's accelerator: KVM only where a Debian kernel really starts under it, emulation otherwise.

import { createHash } from "node:crypto";
import { access, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand, tryCommand } from "../src/base/run-command.ts";

export interface Accelerator {
  readonly kind: "kvm" | "tcg";
  readonly arguments: readonly string[];
}

const kvm: Accelerator = { kind: "kvm", arguments: ["-accel", "kvm", "-cpu", "host"] };
const tcg: Accelerator = { kind: "tcg", arguments: ["-accel", "tcg,thread=multi", "-cpu", "max"] };
const trialMs = 20_000;

/**
 * Boots `kernel` without a root: under a working KVM it says its version and stops within seconds.
 * The answer is kept in the cache for this host kernel and this QEMU.
 */
export async function chooseAccelerator(options: { readonly kernel: string; readonly cacheFolder: string }): Promise<Accelerator> {
  const isPresent = await access("/dev/kvm").then(
    () => true,
    () => false,
  );
  if (!isPresent) return tcg;
  const version = (await runCommand("qemu-system-x86_64", ["--version"])).stdout + (await readFile("/proc/version", "utf8"));
  const kept = join(options.cacheFolder, `accelerator-${createHash("sha256").update(version).digest("hex").slice(0, 16)}`);
  const known = await readFile(kept, "utf8").catch(() => undefined); // Absent on the first call.
  if (known === "kvm" || known === "tcg") return known === "kvm" ? kvm : tcg;
  const works = await bootsUnderKvm(options.kernel);
  await writeFile(`${kept}.${process.pid}`, works ? "kvm" : "tcg");
  await rename(`${kept}.${process.pid}`, kept);
  return works ? kvm : tcg;
}

async function bootsUnderKvm(kernel: string): Promise<boolean> {
  const args = ["-machine", "pc", ...kvm.arguments, "-m", "512", "-smp", "2", "-nodefaults", "-display", "none", "-no-reboot"];
  const boot = ["-kernel", kernel, "-append", "console=ttyS0 panic=-1", "-serial", "stdio"];
  const result = await tryCommand("qemu-system-x86_64", [...args, ...boot], { timeoutMs: trialMs });
  return result.exitCode === 0 && result.stdout.includes("Linux version") && result.stdout.includes("Unable to mount root");
}
