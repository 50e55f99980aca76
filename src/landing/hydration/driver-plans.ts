// What was found out of a kernel's initramfs before, kept in files: a later point whose kernel is the same needs no look into it.
// A plan holds for the bytes that it was made of and no others: whoever uses it compares all of them first.

import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import type { Clock } from "../../base/clock.ts";

export interface DriverPlan {
  /** Modules that the initramfs lacks; none: it has all. */
  readonly names: readonly string[];
  /** What else was read; null: there was no such file. */
  readonly files: readonly { readonly path: string; readonly digest: string | null }[];
  /** The packed archive that goes behind the initramfs; empty when it has all. */
  readonly tail: Uint8Array;
}

export interface DriverPlans {
  /** `inputs`: all that a plan is made of but its files. Undefined: nothing is kept, or what is kept is damaged. */
  find(inputs: readonly string[]): Promise<DriverPlan | undefined>;
  keep(inputs: readonly string[], plan: DriverPlan): Promise<void>;
}

const plansMax = 64;
const tailBytesMax = 32 * 2 ** 20;
const headShape = z.object({
  names: z.array(z.string()),
  files: z.array(z.object({ path: z.string(), digest: z.string().nullable() })),
});

/** The folder may be shared by programs of several versions: their rules tell their plans apart. */
export function openDriverPlans(folder: string, clock: Clock): DriverPlans {
  const rules = digestRules();
  rules.catch(() => undefined); // Whoever asks for a plan hears it.
  const pathOf = async (inputs: readonly string[]): Promise<string> =>
    join(folder, `${digestOf(Buffer.from(JSON.stringify([await rules, ...inputs])))}.plan`);
  return {
    find: async (inputs) => {
      const path = await pathOf(inputs);
      const bytes = await readFile(path).catch(() => undefined); // Not there: it was never kept, or was pushed out.
      const plan = bytes === undefined ? undefined : parsePlan(bytes);
      const nowSeconds = clock.nowMs() / 1000;
      if (plan !== undefined) await utimes(path, nowSeconds, nowSeconds).catch(() => undefined); // Pushed out just now; it was read whole.
      return plan;
    },
    keep: async (inputs, plan) => {
      if (plan.tail.length > tailBytesMax) return;
      const path = await pathOf(inputs);
      try {
        await mkdir(folder, { recursive: true, mode: 0o700 });
        await writeFileAtomic(path, formatPlan(plan));
        await removeOldest(folder);
      } catch {
        // For want of room, say. The landing goes on: the next one looks into the initramfs again.
      }
    },
  };
}

export function digestOf(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** Digest of everything behind it, a line of JSON, the tail. */
function formatPlan({ names, files, tail }: DriverPlan): Buffer {
  const rest = Buffer.concat([Buffer.from(`${JSON.stringify({ names, files })}\n`), tail]);
  return Buffer.concat([Buffer.from(`${digestOf(rest)}\n`), rest]);
}

function parsePlan(bytes: Buffer): DriverPlan | undefined {
  const headAt = bytes.indexOf("\n") + 1;
  const tailAt = bytes.indexOf("\n", headAt) + 1;
  if (headAt === 0 || tailAt === 0 || digestOf(bytes.subarray(headAt)) !== bytes.toString("latin1", 0, headAt - 1)) return undefined;
  const head = headShape.parse(JSON.parse(bytes.toString("utf8", headAt, tailAt)));
  return { ...head, tail: bytes.subarray(tailAt) };
}

/** Of this folder's programs; in a package, of all of them. */
async function digestRules(): Promise<string> {
  const folder = import.meta.dirname;
  const names = (await readdir(folder)).filter((name) => /\.(?:ts|mjs|js)$/.test(name) && !name.endsWith(".test.ts")).sort();
  const digests = await Promise.all(names.map(async (name) => digestOf(await readFile(join(folder, name)))));
  return digestOf(Buffer.from(JSON.stringify([names, digests])));
}

async function removeOldest(folder: string): Promise<void> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".plan"));
  if (names.length <= plansMax) return;
  const used = await Promise.all(
    names.map(async (name) => ({
      name,
      usedMs: await stat(join(folder, name)).then(
        ({ mtimeMs }) => mtimeMs,
        () => 0, // Another program removed it just now.
      ),
    })),
  );
  for (const { name } of used.sort((a, b) => b.usedMs - a.usedMs).slice(plansMax)) await rm(join(folder, name), { force: true });
}
