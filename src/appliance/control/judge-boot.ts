// Decides whether an agent that shows a known certificate is the machine itself, the machine after a reboot, or a copy of it.

/** A boot that was silent for this long, or whose connections are all closed, no longer stands against a new one. */
const bootSilentMs = 45_000;

export interface BootHistory {
  readonly smbiosUuid: string;
  /** The boot that counts as the machine. */
  readonly bootId: string;
  readonly pastBootIds: readonly string[];
  readonly bannedBootIds: readonly string[];
}

export type BootVerdict =
  | { readonly kind: "same" }
  /** A new boot id took the place of one that had fallen silent. */
  | { readonly kind: "rebooted" }
  /** A boot that had been replaced speaks again: both live, so the one in between was a copy. */
  | { readonly kind: "returned" }
  /** mayPass: the machine may have rebooted so fast that its former boot still seems alive. */
  | { readonly kind: "clone"; readonly because: string; readonly mayPass: boolean };

export function judgeBoot(question: {
  readonly known: BootHistory;
  readonly seen: { readonly smbiosUuid: string; readonly bootId: string };
  readonly isKnownBootAlive: boolean;
  /** Since the known boot was last heard of. */
  readonly silentMs: number;
}): BootVerdict {
  const { known, seen, isKnownBootAlive, silentMs } = question;
  if (seen.smbiosUuid !== known.smbiosUuid) return { kind: "clone", because: "another SMBIOS UUID", mayPass: false };
  if (known.bannedBootIds.includes(seen.bootId)) return { kind: "clone", because: "a boot that was proved to be a copy", mayPass: false };
  if (seen.bootId === known.bootId) return { kind: "same" };
  if (known.pastBootIds.includes(seen.bootId)) return { kind: "returned" };
  if (isKnownBootAlive && silentMs < bootSilentMs) return { kind: "clone", because: "two boots of the machine are alive", mayPass: true };
  return { kind: "rebooted" };
}
