// `watari login` and `watari logout`: proves who you are to a hub, and keeps what it gives in files that only you can read.

import { readFile, rm } from "node:fs/promises";
import { resolve } from "node:path";
import type { Command } from "commander";
import { z } from "zod";
import { systemClock } from "../base/clock.ts";
import { systemRandom } from "../base/random.ts";
import { Fault } from "../contract/errors.ts";
import { commandLineClientId } from "../contract/sign-in.ts";
import { ArmClient } from "./arm-client.ts";
import { readRefreshToken, tokenUrl, writeSession, type GivenToken } from "./access-token.ts";
import { openHubConnection } from "./hub-connection.ts";
import { signInByBrowser, signInByDevice, signInLocally } from "./login-person.ts";
import { printAnswer, say } from "./output.ts";
import {
  hubFactsShape,
  operatorFileShape,
  parseJson,
  profilePath,
  readProfile,
  writeProfile,
  type HubFacts,
  type Profile,
} from "./profile.ts";

interface LoginOptions {
  readonly hub?: string;
  readonly caFile?: string;
  readonly device?: boolean;
  readonly accountFile?: string;
  readonly operatorFile?: string;
  readonly credentialFile?: string;
  readonly clientId?: string;
  readonly certificate?: string;
  readonly proxy?: string;
  readonly address?: string;
  readonly resourceGroup: string;
  readonly location: string;
  readonly profile?: string;
  readonly json?: boolean;
}

const accountFileShape = hubFactsShape.extend({ secret: z.string(), expiresAt: z.string() });
const subscriptionsShape = z.array(z.object({ id: z.string() }));

const exampleText = `
A person, by the hub's identity provider (watari hub account --help has the first hour, without one):
  watari login --hub https://management.example.com --ca-file ca.pem
  watari login --hub https://management.example.com --ca-file ca.pem --device      no browser on this machine
The first hour of a hub, or locked out of it:
  watari login --account-file local-account.json                                    made by: watari hub account create
A program, by what "watari principal create" wrote or by a certificate:
  watari login --credential-file deploy.json
  watari login --hub https://management.example.com --ca-file ca.pem --client-id ID --certificate cert-and-key.pem
The hub's authority (ca.pem) comes from who runs it, by a way that you trust. Without --ca-file the authorities of this system count.`;

export function registerLoginCommand(program: Command): void {
  program
    .command("login")
    .description("sign in to a hub, and keep the sign-in for the commands that follow, in files that only you can read")
    .option("--hub <url>", "the hub's management address")
    .option("--ca-file <file>", "certificate authority of the hub, PEM")
    .option("--device", "show a code to enter in a browser on any machine")
    .option("--account-file <file>", "the local account, as the hub's machine made it; works once")
    .option("--credential-file <file>", "credential of a program, written by: watari principal create")
    .option("--operator-file <file>", "operator.json that the hub wrote into its state folder")
    .option("--client-id <id>", "client id of a program that has a certificate")
    .option("--certificate <file>", "PEM with the program's certificate and its key")
    .option("--proxy <url>", "forward proxy by which the hub's public names are reached, for example http://10.10.0.1:3128")
    .option("--address <ip>", "where the hub's public names are, when no resolver here knows them")
    .option("--resource-group <name>", "resource group for what you create", "watari")
    .option("--location <name>", "region name for what you create", "lab1")
    .option("--profile <file>", "where to keep the profile")
    .option("--json", "answer with JSON on stdout")
    .addHelpText("after", exampleText)
    .action(async (options: LoginOptions) => await login(options));
}

export function registerLogoutCommand(program: Command): void {
  program
    .command("logout")
    .description("end the session at the hub and forget it here")
    .option("--profile <file>", "the profile to forget")
    .option("--json", "answer with JSON on stdout")
    .action(async (options: Pick<LoginOptions, "profile" | "json">) => await logout(options));
}

async function login(options: LoginOptions): Promise<void> {
  const path = resolve(options.profile ?? profilePath(process.env));
  const ways = [options.accountFile, options.operatorFile, options.credentialFile, options.hub].filter((way) => way !== undefined);
  if (ways.length !== 1)
    throw new Fault("InputInvalid", "could not sign in: say one of --hub, --account-file, --credential-file and --operator-file", {
      action: "read: watari login --help",
    });
  const file = options.operatorFile ?? options.credentialFile;
  const profile = file === undefined ? await signIn(options, path) : await fromCredential(options, file);
  await using arm = new ArmClient({ profile, clock: systemClock });
  const rights = await prepareGroup(arm, profile);
  await writeProfile(path, profile);
  const { managementUrl, clientId, resourceGroup } = profile;
  const asPerson = profile.sessionFile !== undefined;
  const answer = { managementUrl, ...(asPerson ? {} : { clientId }), resourceGroup, rights, profile: path };
  printAnswer(
    { asJson: options.json === true },
    answer,
    () => `signed in to ${managementUrl}${asPerson ? "" : ` as ${clientId}`}; profile in ${path}`,
  );
  if (rights === "none") say("you have no role yet: ask an Owner for one (watari role assign --help), then go on without signing in again");
}

/** Writes the session before the profile: a profile always has its session. */
async function signIn(options: LoginOptions, path: string): Promise<Profile> {
  const account = options.accountFile === undefined ? undefined : await readAccount(options.accountFile);
  const facts = account ?? (await askHub(options));
  const base = { ...toFacts(facts), ...placeOf(options) };
  if (options.certificate !== undefined || options.clientId !== undefined) return { ...base, ...programOf(options) };
  const sessionFile = `${path}.session`;
  const profile = { ...base, clientId: commandLineClientId, sessionFile };
  await using connection = openHubConnection(profile);
  const way = { profile, connection, clock: systemClock, random: systemRandom };
  const given: GivenToken =
    account === undefined
      ? await (options.device === true ? signInByDevice(way) : signInByBrowser(way))
      : await signInLocally(way, account.secret);
  await writeSession(sessionFile, given, systemClock);
  return profile;
}

async function readAccount(file: string): Promise<z.infer<typeof accountFileShape>> {
  return parseJson(await readInput(file), accountFileShape, file);
}

function programOf({ clientId, certificate }: LoginOptions): Pick<Profile, "clientId" | "certificateFile"> {
  if (clientId !== undefined && certificate !== undefined) return { clientId, certificateFile: resolve(certificate) };
  throw new Fault("InputInvalid", "could not sign in: --client-id and --certificate belong together");
}

async function fromCredential(options: LoginOptions, file: string): Promise<Profile> {
  return { ...parseJson(await readInput(file), operatorFileShape, file), ...placeOf(options), credentialFile: resolve(file) };
}

function placeOf({ resourceGroup, location, proxy, address }: LoginOptions) {
  return { resourceGroup, location, ...(proxy === undefined ? {} : { proxy }), ...(address === undefined ? {} : { address }) };
}

function toFacts({ managementUrl, loginUrl, tenantId, subscriptionId, caPem }: HubFacts): HubFacts {
  return { managementUrl, loginUrl, tenantId, subscriptionId, ...(caPem === undefined ? {} : { caPem }) };
}

/** The hub tells the rest of what a sign-in has to know, over TLS that its authority proves. */
async function askHub(options: LoginOptions): Promise<HubFacts> {
  const given = options.hub ?? "";
  if (!URL.canParse(given) || new URL(given).protocol !== "https:")
    throw new Fault("InputInvalid", "could not sign in: --hub is an https address", { evidence: { hub: given } });
  const caPem = options.caFile === undefined ? undefined : await readInput(options.caFile);
  await using connection = openHubConnection({ caPem, ...placeOf(options) });
  const url = new URL("/hub.json", given);
  url.hostname = url.hostname.replace(/^management\./, "download.");
  const response = await connection.send(url, { method: "GET" }).catch((error: unknown) => {
    throw caPem === undefined && isUntrusted(error) ? untrusted(url, error) : error;
  });
  const facts = hubFactsShape.safeParse(response.body);
  if (facts.success) return { ...facts.data, ...(caPem === undefined ? {} : { caPem }) };
  throw new Fault("HubUnreachable", "could not sign in: what answers there is no hub", {
    evidence: { url: url.href, status: response.status },
    action: "give the hub's management address, https://management.<domain>",
  });
}

/** OpenSSL's words for a chain that ends at an authority that this system does not know. */
function isUntrusted(error: unknown): boolean {
  return error instanceof Fault && /self-signed|unable to (verify|get).*certificate/.test(String(error.evidence["reason"]));
}

function untrusted(url: URL, cause: unknown): Fault {
  return new Fault("HubUnreachable", "could not sign in: this system does not know the authority of the hub's certificate", {
    evidence: { url: url.href },
    causes: ["the hub has an authority of its own, as hubs do", "something between here and the hub answers in its place"],
    action: "get the hub's ca.pem from who runs it, by a way that you trust, and call again with --ca-file ca.pem",
    retry: "never",
    cause,
  });
}

async function readInput(file: string): Promise<string> {
  return await readFile(file, "utf8").catch((cause: unknown) => {
    throw new Fault("InputInvalid", `could not read ${file}`, { evidence: { file }, cause });
  });
}

/** Makes the resource group where the rights are enough; who has none is signed in all the same. */
async function prepareGroup(arm: ArmClient, { location }: Profile): Promise<"write" | "read" | "none"> {
  try {
    await arm.change("PUT", arm.groupPath, { location });
    return "write";
  } catch (error) {
    if (!(error instanceof Fault) || error.code !== "Forbidden") throw error;
    return subscriptionsShape.parse(await arm.list("/subscriptions")).length > 0 ? "read" : "none";
  }
}

async function logout(options: Pick<LoginOptions, "profile" | "json">): Promise<void> {
  const path = resolve(options.profile ?? profilePath(process.env));
  const profile = await readProfile(path);
  const { sessionFile } = profile;
  if (sessionFile !== undefined) {
    await using connection = openHubConnection(profile);
    const token = await readRefreshToken(sessionFile).catch(() => undefined); // No session file: nothing to end.
    if (token !== undefined) await connection.post(tokenUrl(profile, "revoke"), { client_id: commandLineClientId, token });
    await rm(sessionFile, { force: true });
  }
  await rm(path, { force: true });
  printAnswer(
    { asJson: options.json === true },
    { managementUrl: profile.managementUrl, profile: path },
    () => `signed out of ${profile.managementUrl}`,
  );
}
