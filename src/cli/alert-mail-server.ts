// `watari alert set-mail-server`: the server that takes the hub's mails; its password comes from a file and is never shown again.

import { readFile } from "node:fs/promises";
import { InvalidArgumentError, type Command } from "commander";
import { Fault } from "../contract/errors.ts";
import type { ArmClient } from "./arm-client.ts";
import { printAnswer } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";

interface MailServerOptions {
  readonly host: string;
  readonly port: number;
  readonly from: string;
  readonly security: string;
  readonly user?: string;
  readonly passwordFile?: string;
  readonly caFile?: string;
  readonly proxy?: string;
  readonly owner: readonly string[];
  readonly json?: boolean;
  readonly profile?: string;
}

const portMax = 65_535;

export function registerMailServerCommands(noun: Command): void {
  withHubOptions(noun.command("set-mail-server"))
    .description("the server that takes the hub's mails; the operator allows its host and port in hub.yaml")
    .requiredOption("--host <name>", "name of the server, as in its certificate")
    .option("--port <port>", "587 with STARTTLS, 465 with TLS", parsePort, 587)
    .option("--security <way>", "starttls, tls, or none where hub.yaml allows plain", "starttls")
    .requiredOption("--from <address>", "sender of the mails")
    .option("--user <name>", "user of the server")
    .option(
      "--password-file <file>",
      "file with the password on its first line; without it the present one stays, for the same server and user",
    )
    .option("--ca-file <file>", "certificates that are trusted for the server in place of the system's")
    .option("--proxy <url>", "HTTP proxy on the way; the operator has to allow it too")
    .option("--owner <address...>", "addresses of the owners, for vaults whose setting says so", [])
    .action(async (options: MailServerOptions) => await setMailServer(options));
  withHubOptions(noun.command("remove-mail-server"))
    .description("send no more mails; alerts for mail addresses wait, and are given up in time")
    .action(async (options: { readonly json?: boolean; readonly profile?: string }) => {
      await using session = await openSession(options);
      await session.arm.change("DELETE", mailServerPath(session.arm));
      printAnswer(session.style, { removed: true }, () => "the mail server is removed");
    });
}

async function setMailServer(options: MailServerOptions): Promise<void> {
  const { host, port, from, security, user, passwordFile, caFile, proxy, owner } = options;
  const password = passwordFile === undefined ? undefined : await readFirstLine(passwordFile);
  const caPem = caFile === undefined ? undefined : await readFile(caFile, "utf8");
  await using session = await openSession(options);
  const properties = { host, port, from, security, user, password, caPem, proxyUrl: proxy, ownerEmailAddresses: owner };
  const saved = await session.arm.change("PUT", mailServerPath(session.arm), { properties });
  printAnswer(session.style, saved, () => `mails go by ${host} port ${port}; try it: watari alert test --to ADDRESS`);
}

async function readFirstLine(file: string): Promise<string> {
  const line = (await readFile(file, "utf8")).split(/\r?\n/, 1)[0] ?? "";
  if (line === "") throw new Fault("InputInvalid", `could not read the password: ${file} is empty`, { evidence: { file } });
  return line;
}

function parsePort(text: string): number {
  const port = Number(text);
  if (Number.isInteger(port) && port >= 1 && port <= portMax) return port;
  throw new InvalidArgumentError(`a port from 1 to ${portMax}`);
}

/** One for the whole subscription. */
export function mailServerPath(arm: ArmClient): string {
  return `${arm.groupPath.split("/resourceGroups/")[0] ?? ""}/providers/Watari.Alerts/mailServers/default`;
}
