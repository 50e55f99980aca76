// `watari alert`: who is told when something is wrong in a vault, by mail and by webhook, and what became of each message.

import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import { faultReportShape } from "../contract/shapes.ts";
import { mailServerPath, registerMailServerCommands } from "./alert-mail-server.ts";
import type { ArmClient } from "./arm-client.ts";
import { formatTable, printAnswer, say } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";
import { vaultPath } from "./vault.ts";

interface VaultOptions {
  readonly vault: string;
  readonly json?: boolean;
  readonly profile?: string;
}

const settingShape = z.looseObject({
  properties: z.looseObject({ sendToOwners: z.string(), customEmailAddresses: z.array(z.string()), locale: z.string() }),
});
const webhookShape = z.looseObject({
  name: z.string(),
  properties: z.looseObject({ url: z.string(), enabled: z.boolean(), severities: z.array(z.string()) }),
});
const deliveryShape = z.looseObject({
  name: z.string(),
  properties: z.looseObject({
    ...{ state: z.string(), channel: z.string(), receiverId: z.string(), alertCount: z.number(), attemptCount: z.number() },
    ...{ createdAt: z.string(), fault: faultReportShape.optional() },
  }),
});
const testShape = z.looseObject({
  outcome: z.enum(["sent", "failed"]),
  evidence: z.record(z.string(), z.unknown()),
  fault: faultReportShape.optional(),
});

const helpText = `
Nothing is sent until the operator of the hub allows where to, in hub.yaml:
  alerts: { allow: [{ host: smtp.example.test, port: 587 }, { host: hooks.example.test, port: 443 }] }
Then, for mails:
  watari alert set-mail-server --host smtp.example.test --from watari@example.test --user watari --password-file FILE
  watari alert set-email --vault VAULT --to night@example.test --locale ja-JP
  watari alert test --to night@example.test
For a program (CloudEvents, signed as "Standard Webhooks"):
  watari alert add-webhook desk --vault VAULT --url https://hooks.example.test/watari
  watari alert test --vault VAULT --webhook desk`;

export function registerAlertCommand(program: Command): void {
  const noun = program.command("alert").description("alerts of a vault by mail and webhook").addHelpText("after", helpText);
  inVault(noun, "show", "vault of the alerts")
    .description("the mail addresses, webhooks and mail server of a vault's alerts")
    .action(async (options: VaultOptions) => await show(options));
  inVault(noun, "set-email", "vault of the alerts")
    .description("who gets a mail when something critical happens, ends, or a job fails; without --to and --owners: nobody")
    .option("--to <address...>", "addresses", [])
    .option("--owners", "also the owners, whose addresses set-mail-server names")
    .option("--locale <language>", "language of the mails: en-US or ja-JP", "en-US")
    .action(async (options: VaultOptions & EmailOptions) => await setEmail(options));
  registerMailServerCommands(noun);
  registerWebhookCommands(noun);
  withHubOptions(noun.command("test"))
    .description("send a test alert now and show what was seen; exit code 4 when it did not arrive")
    .option("--vault <name>", "vault of the webhook")
    .option("--webhook <name>", "the webhook to test")
    .option("--to <address>", "the mail address to test")
    .option("--locale <language>", "language of the test mail", "en-US")
    .action(async (options: TestOptions) => await test(options));
  inVault(noun, "deliveries", "vault of the alerts")
    .description("the messages of a vault's alerts: sent, waiting and given up, newest first")
    .action(async (options: VaultOptions) => await listDeliveries(options));
  inVault(noun, "resend", "vault of the alerts", "<delivery>")
    .description("send a message that was given up once more; its receiver knows it by its id")
    .action(async (delivery: string, options: VaultOptions) => {
      await using session = await openSession(options);
      await session.arm.change("POST", `${deliveriesPath(session.arm, options.vault)}/${delivery}/resend`, {});
      printAnswer(session.style, { resent: delivery }, () => `${delivery} will be sent again`);
    });
}

function inVault(noun: Command, verb: string, vaultText: string, argument?: string): Command {
  const command = noun.command(verb);
  if (argument !== undefined) command.argument(argument);
  return withHubOptions(command).requiredOption("--vault <name>", vaultText);
}

function registerWebhookCommands(noun: Command): void {
  inVault(noun, "add-webhook", "vault whose alerts are posted", "<name>")
    .description("post alerts to a URL; shows the secret that signs them once, so that the receiver can check it")
    .requiredOption("--url <url>", "https address of the receiver; readers of the vault see it, so put no secret into it")
    .option("--severity <severity...>", "Critical, Warning or Info", ["Critical"])
    .option("--type <type...>", "VmHealth, ServerHealth, AgentHealth or JobStatus; all unless told", [])
    .option("--code <code...>", "event codes; all unless told", [])
    .option("--ca-file <file>", "certificates that are trusted for the receiver in place of the system's")
    .option("--proxy <url>", "HTTP proxy on the way; the operator has to allow it too")
    .action(async (name: string, options: VaultOptions & WebhookOptions) => await addWebhook(name, options));
  inVault(noun, "remove-webhook", "vault of the webhook", "<name>")
    .description("post no more alerts to a webhook; what waits for it is dropped")
    .action(async (name: string, options: VaultOptions) => {
      await using session = await openSession(options);
      await session.arm.change("DELETE", `${webhooksPath(session.arm, options.vault)}/${name}`);
      printAnswer(session.style, { removed: name }, () => `webhook ${name} is removed`);
    });
}

interface EmailOptions {
  readonly to: readonly string[];
  readonly owners?: boolean;
  readonly locale: string;
}

async function setEmail(options: VaultOptions & EmailOptions): Promise<void> {
  await using session = await openSession(options);
  const { to, owners, locale } = options;
  const properties = { sendToOwners: owners === true ? "Send" : "DoNotSend", customEmailAddresses: to, locale };
  const saved = await session.arm.change("PUT", settingPath(session.arm, options.vault), { properties });
  const whom = [...to, ...(owners === true ? ["the owners"] : [])];
  printAnswer(session.style, saved, () =>
    whom.length === 0 ? `nobody gets mails about ${options.vault}` : `mails about ${options.vault} go to ${whom.join(", ")}`,
  );
}

interface WebhookOptions {
  readonly url: string;
  readonly severity: readonly string[];
  readonly type: readonly string[];
  readonly code: readonly string[];
  readonly caFile?: string;
  readonly proxy?: string;
}

async function addWebhook(name: string, options: VaultOptions & WebhookOptions): Promise<void> {
  await using session = await openSession(options);
  const { url, severity, type, code, caFile, proxy } = options;
  const path = `${webhooksPath(session.arm, options.vault)}/${name}`;
  const isNew = (await session.arm.find(path)) === undefined;
  const saved = await session.arm.change("PUT", path, {
    properties: {
      ...{ url, severities: severity, eventTypes: type, eventCodes: code },
      ...(caFile === undefined ? {} : { caPem: await readFile(caFile, "utf8") }),
      ...(proxy === undefined ? {} : { proxyUrl: proxy }),
    },
  });
  if (!isNew) return printAnswer(session.style, saved, () => `webhook ${name} is changed; its secret stays`);
  const { signingSecret } = z.object({ signingSecret: z.string() }).parse(await session.arm.change("POST", `${path}/rotateSecret`, {}));
  say("this secret is shown once; give it to the receiver:");
  printAnswer(session.style, { ...webhookShape.parse(saved), signingSecret }, () => signingSecret);
}

async function show(options: VaultOptions): Promise<void> {
  await using session = await openSession(options);
  const { arm } = session;
  const setting = settingShape.parse(await arm.get(settingPath(arm, options.vault)));
  const webhooks = z.array(webhookShape).parse(await arm.list(webhooksPath(arm, options.vault)));
  const mailServer = await arm.find(mailServerPath(arm));
  const { sendToOwners, customEmailAddresses, locale } = setting.properties;
  printAnswer(session.style, { setting, mailServer: mailServer ?? null, webhooks }, () =>
    formatTable(
      ["WAY", "TO", "WHAT"],
      [
        ["mail server", mailServer === undefined ? "none: watari alert set-mail-server" : hostOf(mailServer), ""],
        ...customEmailAddresses.map((address) => ["email", address, `Critical, in ${locale === "" ? "en-US" : locale}`]),
        ...(/^(send|true)$/i.test(sendToOwners) ? [["email", "the owners", "Critical"]] : []),
        ...webhooks.map(({ name, properties }) => [
          properties.enabled ? "webhook" : "webhook (off)",
          `${name} ${properties.url}`,
          properties.severities.length === 0 ? "everything" : properties.severities.join(", "),
        ]),
      ],
    ),
  );
}

function hostOf(mailServer: unknown): string {
  const { host, port } = z.object({ properties: z.looseObject({ host: z.string(), port: z.number() }) }).parse(mailServer).properties;
  return `${host}:${port}`;
}

interface TestOptions {
  readonly vault?: string;
  readonly webhook?: string;
  readonly to?: string;
  readonly locale: string;
  readonly json?: boolean;
  readonly profile?: string;
}

async function test(options: TestOptions): Promise<void> {
  const { vault, webhook, to, locale } = options;
  if ((to === undefined) === (webhook === undefined || vault === undefined))
    throw new Fault("InputInvalid", "could not test: name one receiver", {
      action: "call with --to ADDRESS, or with --vault V --webhook NAME",
    });
  await using session = await openSession(options);
  const { arm } = session;
  const seen = testShape.parse(
    to === undefined
      ? await arm.change("POST", `${webhooksPath(arm, vault ?? "")}/${webhook ?? ""}/test`, {})
      : await arm.change("POST", `${mailServerPath(arm)}/test`, { to, locale }),
  );
  const rows = Object.entries(seen.evidence).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : String(value)]);
  printAnswer(session.style, seen, () =>
    [
      seen.outcome === "sent" ? "the test alert was sent" : `the test alert was not sent: ${seen.fault?.message ?? ""}`,
      formatTable(["SEEN", ""], rows),
      ...(seen.fault === undefined ? [] : [`what to do: ${seen.fault.action}`]),
    ].join("\n"),
  );
  if (seen.outcome === "failed") process.exitCode = notSentExitCode;
}

const notSentExitCode = 4;

async function listDeliveries(options: VaultOptions): Promise<void> {
  await using session = await openSession(options);
  const deliveries = z.array(deliveryShape).parse(await session.arm.list(deliveriesPath(session.arm, options.vault)));
  printAnswer(session.style, deliveries, () =>
    formatTable(
      ["WHEN", "STATE", "WAY", "TO", "ALERTS", "ATTEMPTS", "ID", "WHY"],
      deliveries.map(({ name, properties }) => [
        properties.createdAt,
        properties.state,
        properties.channel,
        properties.receiverId.split("/").at(-1) ?? "",
        String(properties.alertCount),
        String(properties.attemptCount),
        name,
        properties.fault?.message ?? "",
      ]),
    ),
  );
}

function settingPath(arm: ArmClient, vault: string): string {
  return `${vaultPath(arm.groupPath, vault)}/replicationAlertSettings/defaultAlertSetting`;
}

function webhooksPath(arm: ArmClient, vault: string): string {
  return `${vaultPath(arm.groupPath, vault)}/providers/Watari.Alerts/webhooks`;
}

function deliveriesPath(arm: ArmClient, vault: string): string {
  return `${vaultPath(arm.groupPath, vault)}/providers/Watari.Alerts/deliveries`;
}
