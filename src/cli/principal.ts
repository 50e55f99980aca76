// `watari principal`: people and programs that may sign in, and the credentials of programs.

import { readFile } from "node:fs/promises";
import { InvalidArgumentError, type Command } from "commander";
import { z } from "zod";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { systemClock, toTimestamp } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { Fault } from "../contract/errors.ts";
import type { ArmClient } from "./arm-client.ts";
import { findIdentity, identityPath, listIdentities, type Identity } from "./identity.ts";
import { formatTable, printAnswer, say } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";

interface HubOptions {
  readonly json?: boolean;
  readonly profile?: string;
}

interface CredentialOptions extends HubOptions {
  readonly out?: string;
  readonly certificate?: string;
  readonly validDays: number;
}

const dayMs = 86_400_000;
const validDaysMax = 730;
const programShape = z.object({ properties: z.object({ principalId: z.string(), clientId: z.string() }) });
const credentialShape = z.object({ credentialId: z.string(), expiresAt: z.string(), secret: z.string().optional() });
const shownShape = z.looseObject({
  clientId: z.string().optional(),
  isEnabled: z.boolean().optional(),
  lastSignInAt: z.string().optional(),
  credentials: z.array(z.looseObject({ credentialId: z.string(), kind: z.string(), expiresAt: z.string() })).optional(),
});

const exampleText = `
A program that may read, with a secret for 90 days in a file of yours:
  watari principal create report --out report.json
  watari role assign Reader --to report
  watari login --credential-file report.json        on the machine of the program
People need no "create": they are known from their first sign-in on (watari login --hub …), without any role.`;

export function registerPrincipalCommand(program: Command): void {
  const noun = program.command("principal").description("people and programs that may sign in").addHelpText("after", exampleText);
  withHubOptions(noun.command("list"))
    .description("people, programs and groups")
    .action(async (options: HubOptions) => await list(options));
  withHubOptions(noun.command("show").argument("<name or id>"))
    .description("one of them, with its credentials or groups")
    .action(async (who: string, options: HubOptions) => await show(who, options));
  withCredential(withHubOptions(noun.command("create").argument("<name>")))
    .description("make a program (service principal) with a secret in a file, or with a certificate of yours; it has no role yet")
    .action(async (name: string, options: CredentialOptions) => await create(name, options));
  withCredential(withHubOptions(noun.command("add-credential").argument("<name or id>")))
    .description("give a program one more secret or certificate, for a change without a gap")
    .action(async (who: string, options: CredentialOptions) => await addCredential(who, options));
  withHubOptions(noun.command("remove-credential").argument("<name or id>").argument("<credential id>"))
    .description("take a credential away; it works no more, and tokens made with it for an hour at most")
    .action(async (who: string, credentialId: string, options: HubOptions) => await removeCredential(who, credentialId, options));
  for (const [verb, action, description] of [
    ["disable", "disable", "keep a person from signing in; open sessions end at once"],
    ["enable", "enable", "let a disabled person sign in again"],
    ["sign-out", "signOut", "end every session of a person"],
  ] as const)
    withHubOptions(noun.command(verb).argument("<name or id>"))
      .description(description)
      .action(async (who: string, options: HubOptions) => {
        await using session = await openSession(options);
        const person = await findIdentity(session.arm, who, ["person"]);
        await session.arm.change("POST", `${person.path}/${action}`, {});
        printAnswer(session.style, { principalId: person.principalId, done: verb }, () => `${verb}: ${person.name}`);
      });
  withHubOptions(noun.command("remove").argument("<name or id>"))
    .description("remove a program or a person, with credentials and sessions; a person who signs in again is a new one without roles")
    .option("--yes", "needed where no terminal asks")
    .action(async (who: string, options: HubOptions & { readonly yes?: boolean }) => await remove(who, options));
}

function withCredential(command: Command): Command {
  return command
    .option("--out <file>", "file for the secret and all that a sign-in needs, readable by its owner only")
    .option("--certificate <file>", "PEM certificate (RSA, 2048 bits or more) in place of a secret; its key stays with you")
    .option("--valid-days <days>", `how long it works, up to ${validDaysMax}`, parseDays, 90);
}

async function list(options: HubOptions): Promise<void> {
  await using session = await openSession(options);
  const all = await listIdentities(session.arm);
  printAnswer(
    session.style,
    all.map(({ kind, properties }) => ({ kind, ...properties })),
    () =>
      formatTable(
        ["KIND", "NAME", "USER NAME", "ID"],
        all.map(({ kind, name, userName, principalId }) => [kind, name, userName ?? "", principalId]),
      ),
  );
}

async function show(who: string, options: HubOptions): Promise<void> {
  await using session = await openSession(options);
  const { kind, name, principalId, userName, properties } = await findIdentity(session.arm, who);
  const { clientId, isEnabled, lastSignInAt, credentials } = shownShape.parse(properties);
  printAnswer(session.style, { kind, ...properties }, () => {
    const facts: [string, string | undefined][] = [
      ["kind", kind],
      ["name", name],
      ["user name", userName],
      ["id", principalId],
      ["client id", clientId],
      ["enabled", isEnabled === undefined ? undefined : isEnabled ? "yes" : "no"],
      ["last sign-in", lastSignInAt],
    ];
    const lines = facts.flatMap(([label, value]) => (value === undefined ? [] : [`${label.padEnd(14)}${value}`]));
    const rows = (credentials ?? []).map((each) => [each.kind, each.credentialId, each.expiresAt]);
    return rows.length === 0 ? lines.join("\n") : `${lines.join("\n")}\n\n${formatTable(["CREDENTIAL", "ID", "UNTIL"], rows)}`;
  });
}

async function create(name: string, options: CredentialOptions): Promise<void> {
  requireOne(options);
  await using session = await openSession(options);
  const { arm } = session;
  const same = (await listIdentities(arm, ["program"])).find((each) => each.name.toLowerCase() === name.toLowerCase());
  if (same !== undefined)
    throw new Fault("StateConflict", `could not create ${name}: a program has this name`, {
      evidence: { principalId: same.principalId },
      action: `choose another name, or give it one more credential: watari principal add-credential ${name} --out FILE`,
      retry: "never",
    });
  const path = identityPath(arm, "program", systemRandom.uuid());
  const made = programShape.parse(await arm.change("PUT", path, { properties: { displayName: name } }));
  const { principalId, clientId } = made.properties;
  const credential = await giveCredential(arm, { path, clientId }, options);
  printAnswer(session.style, { principalId, clientId, ...credential }, () => `${name} is made, client id ${clientId}; ${told(credential)}`);
  say(`it has no role yet: watari role assign Reader --to ${name}`);
}

async function addCredential(who: string, options: CredentialOptions): Promise<void> {
  requireOne(options);
  await using session = await openSession(options);
  const { path, name, properties } = await findIdentity(session.arm, who, ["program"]);
  const credential = await giveCredential(session.arm, { path, clientId: shownShape.parse(properties).clientId ?? "" }, options);
  printAnswer(session.style, credential, () => `${name}: ${told(credential)}`);
}

interface GivenCredential {
  readonly credentialId: string;
  readonly expiresAt: string;
  readonly file?: string;
}

function told({ file, expiresAt }: GivenCredential): string {
  return file === undefined ? `its certificate works until ${expiresAt}` : `its secret is in ${file} and works until ${expiresAt}`;
}

/** The secret goes from the hub's answer into the file and to no other place. */
async function giveCredential(
  arm: ArmClient,
  { path, clientId }: { readonly path: string; readonly clientId: string },
  options: CredentialOptions,
): Promise<GivenCredential> {
  const expiresAt = toTimestamp(systemClock.nowMs() + options.validDays * dayMs);
  const certificatePem =
    options.certificate === undefined ? undefined : certificateIn(await readFile(options.certificate, "utf8"), options.certificate);
  const body = certificatePem === undefined ? { secret: "generate", expiresAt } : { certificatePem, expiresAt };
  const { secret, credentialId } = credentialShape.parse(await arm.change("POST", `${path}/addCredential`, body));
  const { out: file } = options;
  if (secret === undefined || file === undefined) return { credentialId, expiresAt };
  await writeFileAtomic(file, `${JSON.stringify({ ...arm.hub, clientId, clientSecret: secret }, undefined, 2)}\n`, { mode: 0o600 });
  return { credentialId, expiresAt, file };
}

/** A key that lies in the same file never leaves this machine. */
function certificateIn(pem: string, file: string): string {
  const certificate = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.exec(pem)?.[0];
  if (certificate !== undefined) return certificate;
  throw new Fault("InputInvalid", `could not read ${file}: it has no PEM certificate`, { evidence: { file } });
}

function requireOne({ out, certificate }: CredentialOptions): void {
  if ((out === undefined) !== (certificate === undefined)) return;
  throw new Fault("InputInvalid", "could not make a credential: say either --out (a secret, written there) or --certificate");
}

async function removeCredential(who: string, credentialId: string, options: HubOptions): Promise<void> {
  await using session = await openSession(options);
  const { path, name } = await findIdentity(session.arm, who, ["program"]);
  await session.arm.change("POST", `${path}/removeCredential`, { credentialId });
  printAnswer(session.style, { credentialId }, () => `${name}: the credential ${credentialId} is removed`);
}

async function remove(who: string, options: HubOptions & { readonly yes?: boolean }): Promise<void> {
  await using session = await openSession(options);
  const found = await findIdentity(session.arm, who, ["person", "program"]);
  await confirmRemoval(found, options.yes);
  await session.arm.change("DELETE", found.path);
  printAnswer(session.style, { removed: found.principalId }, () => `${found.name} is removed`);
}

/** Removing names what it removes, and asks for --yes. */
export async function confirmRemoval({ kind, name, principalId }: Identity, yes: boolean | undefined): Promise<void> {
  if (yes === true) return;
  throw new Fault("InputInvalid", `could not remove the ${kind} ${name}: --yes is missing`, {
    evidence: { principalId },
    action: "call again with --yes",
  });
}

function parseDays(text: string): number {
  const days = Number(text);
  if (Number.isInteger(days) && days >= 1 && days <= validDaysMax) return days;
  throw new InvalidArgumentError(`a whole number from 1 to ${validDaysMax}`);
}
