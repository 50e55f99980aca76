// Finds out whether KVM runs a processor here, by a trial: the device's presence alone promises nothing.

import { access, constants } from "node:fs/promises";
import { tryCommand } from "../../base/run-command.ts";
import type { Accelerator } from "./emulator.ts";

const trialMsMax = 10_000;

export async function chooseAccelerator(): Promise<Accelerator> {
  try {
    await access("/dev/kvm", constants.R_OK | constants.W_OK);
  } catch {
    return "tcg"; // No device, or not for us.
  }
  const machine = ["-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "64M", "-nodefaults", "-display", "none", "-monitor", "stdio"];
  const { exitCode } = await tryCommand("qemu-system-x86_64", machine, { stdin: "info status\nquit\n", timeoutMs: trialMsMax });
  return exitCode === 0 ? "kvm" : "tcg";
}
