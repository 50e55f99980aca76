// Sizes that machines may be made with: a ladder of processors and memory up to what the host has.

import { availableParallelism, totalmem } from "node:os";

export interface HostSize {
  readonly numberOfCores: number;
  readonly memoryInMB: number;
  readonly maxDataDiskCount: number;
}
export interface MachineSize {
  readonly name: string;
  readonly numberOfCores: number;
  readonly memoryInMB: number;
}

const memoryLeastMB = 512;

/** "Watari_2c_1024m": processors, and memory in MiB. Each step doubles; the host's own numbers end each ladder. */
export function sizeLadder(host: HostSize): readonly MachineSize[] {
  const cores = doublings(1, host.numberOfCores);
  const memories = doublings(memoryLeastMB, host.memoryInMB);
  return cores.flatMap((numberOfCores) =>
    memories.map((memoryInMB) => ({ name: `Watari_${numberOfCores}c_${memoryInMB}m`, numberOfCores, memoryInMB })),
  );
}

export function hostSize(): HostSize {
  return { numberOfCores: availableParallelism(), memoryInMB: Math.floor(totalmem() / 2 ** 20), maxDataDiskCount: 63 };
}

export function findSize(name: string, host: HostSize): MachineSize | undefined {
  return sizeLadder(host).find((size) => size.name.toLowerCase() === name.toLowerCase());
}

function doublings(first: number, last: number): readonly number[] {
  const found: number[] = [];
  for (let at = first; at < last; at *= 2) found.push(at);
  return [...found, Math.max(first, last)];
}
