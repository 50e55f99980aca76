// What a move asks at a terminal: only what no flag and no earlier call has told.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { type CANCEL_SYMBOL, confirm, isCancel, note, password, select, text } from "@clack/prompts";
import { Fault } from "../../contract/errors.ts";
import type { Prediction } from "../downtime.ts";
import { formatSeconds } from "../output.ts";
import { chooseLogin, isKeyEncrypted, type Login } from "./login.ts";
import { sourceText } from "./source.ts";
import type { MoveFlags, MoveWish } from "./wish.ts";

/** Talk goes there, as everywhere; stdout is for data. */
const atStderr = { output: process.stderr };

/** Nobody answers where either end is no terminal. */
export function isAtTerminal(): boolean {
  return process.stdin.isTTY && process.stderr.isTTY;
}

/** The login, asked for where needed; undefined when the appliance has one. */
export async function findLogin(wish: MoveWish, flags: MoveFlags, isKept: boolean): Promise<Login | undefined> {
  const usual = join(homedir(), ".ssh", "id_ed25519");
  const usualKey = existsSync(usual) ? usual : undefined;
  const choice = chooseLogin({ flags, isKept, isTerminal: isAtTerminal(), usualKey });
  switch (choice.kind) {
    case "kept":
      return undefined;
    case "key":
      return await withPassphrase(choice.file);
    case "passwordFile":
      return { kind: "password", password: (await readSecret(choice.file)).replace(/\r?\n$/, "") };
    case "ask":
      return await askLogin(wish, usualKey);
  }
}

async function askLogin(wish: MoveWish, usualKey: string | undefined): Promise<Login> {
  const how = answered(
    await select({
      ...atStderr,
      message: `How does ${sourceText(wish.source)} let you in?`,
      options: [
        ...(usualKey === undefined ? [] : [{ value: "usual", label: `by the key ${usualKey}` }]),
        { value: "key", label: "by another private key" },
        { value: "password", label: "by a password" },
      ],
    }),
  );
  if (how === "usual" && usualKey !== undefined) return await withPassphrase(usualKey);
  if (how === "password") {
    const secret = answered(await password({ ...atStderr, message: `Password of ${wish.source.user} on ${wish.source.host}` }));
    return { kind: "password", password: secret };
  }
  const file = answered(
    await text({ ...atStderr, message: "Private key file", ...(usualKey === undefined ? {} : { placeholder: usualKey }) }),
  );
  return await withPassphrase(file.startsWith("~/") ? join(homedir(), file.slice(2)) : file);
}

async function withPassphrase(file: string): Promise<Login> {
  if (!isKeyEncrypted(await readSecret(file))) return { kind: "key", file };
  if (!isAtTerminal()) {
    throw new Fault("InputInvalid", `could not use the key ${file}: it needs a passphrase, and nobody can be asked here`, {
      evidence: { flag: "--key" },
      action: "give a key without a passphrase, or call at a terminal",
    });
  }
  return { kind: "key", file, passphrase: answered(await password({ ...atStderr, message: `Passphrase of ${file}` })) };
}

async function readSecret(file: string): Promise<string> {
  return await readFile(file, "utf8").catch((error: unknown) => {
    throw new Fault("InputInvalid", `could not read ${file}`, {
      evidence: { file, reason: error instanceof Error ? error.message : String(error) },
      cause: error,
    });
  });
}

/** The folder for disk files. */
export async function findExportFolder(wish: MoveWish): Promise<MoveWish> {
  const { outcome } = wish;
  if (outcome.kind !== "files" || outcome.folder !== undefined) return wish;
  if (!isAtTerminal()) {
    throw new Fault("InputInvalid", "could not choose where the disk files go: --out is missing", {
      evidence: { flag: "--out" },
      action: "give --out DIR",
    });
  }
  const folder = answered(
    await text({ ...atStderr, message: "Folder for the disk files", placeholder: process.cwd(), defaultValue: process.cwd() }),
  );
  return { ...wish, outcome: { ...outcome, folder } };
}

/** Says what will happen and asks whether to begin. Where nobody can be asked the cut-over needs --yes. */
export async function confirmBeginning(wish: MoveWish): Promise<void> {
  if (wish.isConfirmed) return;
  if (isAtTerminal()) {
    note(planText(wish), "What will happen", atStderr);
    if (answered(await confirm({ ...atStderr, message: "Begin?" }))) return;
    throw stopped();
  }
  if (wish.until === "test") return;
  throw new Fault("InputInvalid", `could not move ${wish.source.host}: the cut-over powers it off, and nobody can be asked here`, {
    evidence: { flag: "--yes" },
    action: "say --yes to cut over, or --until test to stop before it",
  });
}

export async function confirmCutOver(wish: MoveWish, machineName: string, { seconds }: Prediction): Promise<boolean> {
  if (wish.isConfirmed) return true;
  const message = `Cut over now? ${machineName} (${wish.source.host}) will be POWERED OFF and goes on here, about ${formatSeconds(seconds)} later.`;
  const answer = await confirm({ ...atStderr, message, initialValue: false });
  return !isCancel(answer) && answer;
}

function planText(wish: MoveWish): string {
  const where =
    wish.outcome.kind === "files"
      ? `its disks become ${wish.outcome.format} files in ${wish.outcome.folder ?? ""}`
      : "it boots here under QEMU and goes on where it was";
  return [
    `1. An agent is put on ${sourceText(wish.source)} by SSH. It copies every disk and follows the changes. The machine runs on.`,
    "2. A copy boots here in a network of its own, as a test, and is removed.",
    ...(wish.until === "test"
      ? ["3. That is all for now; the machine goes on being replicated."]
      : [
          "3. You are asked again. Then its filesystems are frozen, the last changes sent, and it is POWERED OFF.",
          `4. Then ${where}. If that fails, the copy is removed and you power the source on again.`,
        ]),
  ].join("\n");
}

function answered<T>(answer: T | typeof CANCEL_SYMBOL): T {
  if (isCancel(answer)) throw stopped();
  return answer;
}

function stopped(): Fault {
  return new Fault("JobCancelled", "stopped by you; nothing was changed", {
    causes: ["a question was answered with no, or left"],
    action: "call again to begin, or to go on",
  });
}
