// `watari hub account`: the local account, made on the hub's machine by who may read its state folder; straight in the database.

import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { InvalidArgumentError, type Command } from "commander";
import { writeFileAtomic } from "../../base/atomic-file.ts";
import { fromTimestamp, systemClock, toTimestamp } from "../../base/clock.ts";
import { openLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { printAnswer } from "../../cli/output.ts";
import { Fault } from "../../contract/errors.ts";
import { appendEntries } from "../db/audit-entries.ts";
import { openPlainConnection } from "../db/database.ts";
import { openLocalAccounts, type LocalAccounts } from "../db/local-account.ts";
import { privateAddress } from "../db/private-cluster.ts";
import { readServerAddress } from "../db/server-address.ts";
import { findSetting } from "../db/settings.ts";
import { readHubConfig, type HubConfig } from "../hub-config.ts";
import { publicNamesOf } from "../private-link/public-door.ts";
import { hashLocalSecret, makeLocalSecret } from "./local-account.ts";

interface Options {
  readonly config: string;
  readonly json?: boolean;
}

interface CreateOptions extends Options {
  readonly out?: string;
  readonly validMinutes: number;
  readonly breakGlass?: boolean;
}

const validMinutesMax = 24 * 60;
const httpsPort = 443;

const exampleText = `
The first hour of a hub, on its machine:
  watari hub account create --config hub.yaml
  watari login --account-file <the file that it names>
Then connect your identity provider (signIn.provider in hub.yaml), sign in by it once, and make yourself Owner:
  watari role assign Owner --to you@example.com
The local account ends by itself with that. Locked out later: watari hub account create --config hub.yaml --break-glass`;

export function registerAccountCommands(noun: Command): void {
  const account = noun
    .command("account")
    .description("the local account: one Owner for the first hour, or for when the identity provider is lost")
    .addHelpText("after", exampleText);
  const withConfig = (verb: string): Command =>
    account
      .command(verb)
      .requiredOption("--config <file>", "the hub's configuration; the hub must run")
      .option("--json", "answer with JSON on stdout");
  withConfig("create")
    .description("make it anew: a secret for one sign-in, in a file that only you can read")
    .option("--out <file>", "file to write (default: local-account.json in the hub's state folder)")
    .option("--valid-minutes <minutes>", `how long the account lasts, up to ${validMinutesMax}`, parseMinutes, 60)
    .option("--break-glass", "also when the hub has an Owner from the identity provider; such an account ends with its time alone")
    .action(create);
  withConfig("show").description("whether there is one, and until when").action(show);
  withConfig("disable").description("end it now, with its sessions").action(disable);
}

interface Place extends AsyncDisposable {
  readonly config: HubConfig;
  readonly accounts: LocalAccounts;
  readonly tenantId: string;
  readonly subscriptionId: string;
  /** Written before the work: who may do this may also stop the hub, but not unseen. */
  note(action: string, outcome: string): Promise<void>;
}

async function openPlace(file: string): Promise<Place> {
  const config = await readHubConfig(file);
  const { databaseUrl: url } = config;
  const address = url === undefined ? privateAddress(config.stateDir) : await readServerAddress({ ...config, url });
  await using opening = new AsyncDisposableStack();
  const { db } = opening.use(openPlainConnection(address, openLog({ program: "hub" })));
  const tenantId = await findSetting(db, "tenantId").catch((cause: unknown) => {
    throw new Fault(
      "DatabaseUnavailable",
      "could not reach the hub's database: the hub does not run, or you may not read its state folder",
      {
        evidence: { stateDir: config.stateDir },
        action: `start it first: watari hub run --config ${file}; then call as the same user, or as root`,
        cause,
      },
    );
  });
  const subscriptionId = await findSetting(db, "subscriptionId");
  if (tenantId === undefined || subscriptionId === undefined)
    throw new Fault("StateConflict", "could not reach the local account: this hub has never run", {
      action: "watari hub run --config FILE",
    });
  const closing = opening.move();
  return {
    ...{ config, tenantId, subscriptionId },
    accounts: openLocalAccounts({ db, clock: systemClock, random: systemRandom, subscriptionId }),
    note: async (action, outcome) => {
      const at = toTimestamp(systemClock.nowMs());
      const who = { principalId: "00000000-0000-0000-0000-000000000000", principalName: "who runs the hub's machine" };
      const what = { action: `Watari.Identity/localAccount/${action}`, resourceId: `/subscriptions/${subscriptionId}`, outcome };
      const entryId = systemRandom.uuid();
      await appendEntries(db, undefined, [{ kind: "note", entryId, at, ...who, ...what, correlationId: entryId }]);
    },
    [Symbol.asyncDispose]: async () => await closing.disposeAsync(),
  };
}

async function create(options: CreateOptions): Promise<void> {
  await using place = await openPlace(options.config);
  const { config, accounts, tenantId, subscriptionId } = place;
  const kind = options.breakGlass === true ? "breakGlass" : "firstHour";
  const owner = kind === "firstHour" ? await accounts.findOwner() : undefined;
  if (owner !== undefined)
    throw new Fault("StateConflict", `could not make the local account: ${owner} of the identity provider is Owner already`, {
      evidence: { owner },
      action: `let ${owner} sign in; if that cannot be, call again with --break-glass, which the audit trail will show`,
      retry: "never",
    });
  const secret = makeLocalSecret(systemRandom);
  const expiresAt = toTimestamp(systemClock.nowMs() + options.validMinutes * 60_000);
  const file = resolve(options.out ?? join(config.stateDir, "local-account.json"));
  const facts = { ...urlsOf(config), tenantId, subscriptionId, caPem: await readAuthority(config.stateDir) };
  await place.note("create/action", `${kind}, until ${expiresAt}`);
  await writeFileAtomic(file, `${JSON.stringify({ ...facts, secret, expiresAt }, undefined, 2)}\n`, { mode: 0o600 });
  await accounts.make({ kind, secretHash: await hashLocalSecret(secret, systemRandom), expiresAt });
  printAnswer({ asJson: options.json === true }, { file, expiresAt, kind }, () =>
    [
      `local account made, Owner of the hub until ${expiresAt}; its secret is in ${file} and works once`,
      `sign in:  watari login --account-file ${file}`,
      `or in a browser: the sign-in page asks for the secret`,
    ].join("\n"),
  );
}

async function show(options: Options): Promise<void> {
  await using place = await openPlace(options.config);
  const [account, owner] = [await place.accounts.find(), await place.accounts.findOwner()];
  const { kind, expiresAt, usedAt, endedAt, endReason } = account ?? {};
  const isOver = account === undefined || endedAt !== undefined || fromTimestamp(account.expiresAt) <= systemClock.nowMs();
  const said = { isActive: !isOver, kind, expiresAt, usedAt, endedAt, endReason, owner };
  printAnswer({ asJson: options.json === true }, said, () => {
    if (account === undefined) return "no local account was ever made";
    const end = endReason === undefined ? "" : `: ${endReason}`;
    return isOver
      ? `the local account is over${end}`
      : `the local account (${account.kind}) lasts until ${account.expiresAt}${usedAt === undefined ? "" : ", its secret is used"}`;
  });
}

async function disable(options: Options): Promise<void> {
  await using place = await openPlace(options.config);
  await place.note("disable/action", "disabled by command");
  const isEnded = await place.accounts.end("it was disabled by command");
  printAnswer({ asJson: options.json === true }, { isEnded }, () =>
    isEnded ? "the local account is over" : "there was no local account to end",
  );
}

function urlsOf(config: HubConfig): { readonly managementUrl: string; readonly loginUrl: string } {
  const names = publicNamesOf(config.domain);
  const toUrl = (name: string): string => `https://${name}${config.managementPort === httpsPort ? "" : `:${config.managementPort}`}`;
  return { managementUrl: toUrl(config.localName ?? names.management), loginUrl: toUrl(config.localName ?? names.login) };
}

/** The certificate alone: its key lies in the same file. */
async function readAuthority(stateDir: string): Promise<string> {
  const text = await readFile(join(stateDir, "pki", "ca.pem"), "utf8");
  const certificate = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/.exec(text)?.[0];
  if (certificate !== undefined) return `${certificate}\n`;
  throw new Fault("DataDamaged", "could not read the hub's certificate authority", { evidence: { file: join(stateDir, "pki", "ca.pem") } });
}

function parseMinutes(text: string): number {
  const minutes = Number(text);
  if (Number.isInteger(minutes) && minutes >= 1 && minutes <= validMinutesMax) return minutes;
  throw new InvalidArgumentError(`a whole number from 1 to ${validMinutesMax}`);
}
