// `watari site`: what appliances of a vault do by order of the hub: limit their lines, measure a machine, check their ways.

import type { Command } from "commander";
import { z } from "zod";
import { churnProfileShape, predictLine } from "../contract/churn-profile.ts";
import { Fault } from "../contract/errors.ts";
import { parseRate, parseWindow } from "../contract/limit-text.ts";
import { limitScopes } from "../contract/line-limits.ts";
import { networkCheckShape } from "../contract/network-check.ts";
import { writeCheckPage } from "./net-check.ts";
import { formatBytes, formatSeconds, formatTable, openProgress, printAnswer, rateText } from "./output.ts";
import { openSession, withHubOptions, type Session } from "./session.ts";
import { vaultPath } from "./vault.ts";

interface Options {
  readonly json?: boolean;
  readonly profile?: string;
  readonly vault: string;
  readonly appliance?: string;
}

interface PlaceOptions extends Options {
  readonly line: string;
  readonly machine?: string;
  readonly days?: string;
  readonly from?: string;
  readonly until?: string;
}

/** A hop failed: the network or a peer; as `watari net check`. */
const exitWithFailures = 4;

const limitShape = z.looseObject({
  scope: z.string(),
  machineId: z.string().optional(),
  window: z.object({ days: z.array(z.string()), from: z.string(), until: z.string() }).optional(),
  bytesPerSecond: z.union([z.number(), z.literal("unlimited")]),
});
const limitsShape = z.looseObject({
  timeZone: z.string(),
  limits: z.array(limitShape),
  lines: z.array(
    z.looseObject({
      scope: z.string(),
      machineId: z.string().optional(),
      bytesPerSecond: z.number().optional(),
      reason: z.string(),
      measuredBytesPerSecond: z.number(),
      waitedShare: z.number(),
    }),
  ),
});
type Limits = z.infer<typeof limitsShape>;
const fabricShape = z.looseObject({
  id: z.string(),
  name: z.string(),
  properties: z.looseObject({
    friendlyName: z.string(),
    customDetails: z.looseObject({
      processServers: z.array(z.looseObject({ watari: z.looseObject({ lineLimits: limitsShape.optional() }).optional() })),
    }),
  }),
});
type Fabric = z.infer<typeof fabricShape>;
const reportShape = z.looseObject({ passed: z.boolean(), failedCount: z.number(), checks: z.array(networkCheckShape) });
type Report = z.infer<typeof reportShape>;
/** A job that checked, as the hub keeps it. */
const checkJobShape = z.looseObject({
  properties: z.looseObject({ targetObjectName: z.string(), watari: z.looseObject({ networkReport: reportShape.optional() }) }),
});

export function registerSiteCommand(program: Command): void {
  const noun = program.command("site").description("appliances of a vault, by order of the hub: limits of their lines, profiles, checks");
  verb(noun, "limits", "limits of an appliance's lines and what passes them, as it told last").action(async (options: Options) => {
    await using session = await openSession(options);
    const fabric = await findFabric(session, options);
    const limits = fabric.properties.customDetails.processServers.find(({ watari }) => watari?.lineLimits !== undefined)?.watari
      ?.lineLimits;
    if (limits === undefined)
      throw new Fault("ReplicationNotReady", `the appliance ${fabric.properties.friendlyName} has not told of its limits yet`, {
        causes: ["it is older than its hub", "it has not spoken since its start"],
      });
    printAnswer(session.style, limits, () => limitsText(limits));
  });
  withPlace(verb(noun, "limit", "set a limit, or replace the one of the same line and window; in force at once"))
    .requiredOption("--rate <rate>", 'for example 200mbit, 25MB (a second), or "unlimited"')
    .action(async (options: PlaceOptions & { readonly rate: string }) => {
      await changeLimits(options, { set: [{ ...placeOf(options), bytesPerSecond: parseRate("--rate", options.rate) }] });
    });
  withPlace(verb(noun, "unlimit", "remove the limit of a line and window")).action(async (options: PlaceOptions) => {
    await changeLimits(options, { remove: [placeOf(options)] });
  });
  verb(noun, "time-zone", "the time zone in which windows are meant")
    .argument("<name>", "a name of the IANA database, for example Europe/Berlin")
    .action(async (timeZone: string, options: Options) => await changeLimits(options, { timeZone }));
  registerProfile(noun);
  registerCheck(noun);
}

function registerProfile(noun: Command): void {
  verb(noun, "profile", "count for a while what a machine writes that is not replicated, and predict what it asks of a line")
    .argument("<machine>", "host name or id of a machine whose agent is registered at the appliance")
    .option("--seconds <seconds>", "for how long; a working day tells most", Number, 3600)
    .option("--line <rate...>", "line speeds to predict for", ["100mbit", "1gbit"])
    .option("--interval <seconds>", "wanted time between recovery points", Number, 300)
    .option("--wire-share <share>", "bytes on the wire for each byte that changed; 1: nothing compresses", Number, 1)
    .action(
      async (
        machine: string,
        options: Options & {
          readonly seconds: number;
          readonly line: readonly string[];
          readonly interval: number;
          readonly wireShare: number;
        },
      ) => {
        const lines = options.line.map((text) => parseRate("--line", text)).filter((rate) => rate !== "unlimited");
        await using session = await openSession(options);
        const fabric = await findFabric(session, options);
        const body = { machine, seconds: options.seconds };
        const profile = churnProfileShape.parse(await order(session, `profile of ${machine}`, `${fabric.id}/profileMachine`, body));
        const wish = { intervalSeconds: options.interval, wireShare: options.wireShare };
        const predictions = lines.map((lineBytesPerSecond) => predictLine(profile, { lineBytesPerSecond, ...wish }));
        const seconds = (value: number | undefined): string => (value === undefined ? "never" : formatSeconds(value));
        printAnswer(session.style, { machine, profile, predictions }, () =>
          [
            formatTable(
              ["WITHIN", "CHANGES, MEAN", "CHANGES, MOST"],
              profile.windows.map((window) => [
                ...[formatSeconds(window.seconds), formatBytes(Math.round(window.meanBytes)), formatBytes(window.maxBytes)],
              ]),
            ),
            formatTable(
              ["LINE", "LINE USED", "OBJECTIVE", "AT WORST", "INITIAL COPY"],
              predictions.map((each) => [
                rateText(each.lineBytesPerSecond),
                `${(100 * each.lineShare).toFixed(1)} %`,
                seconds(each.typicalObjectiveSeconds),
                seconds(each.worstObjectiveSeconds),
                formatSeconds(each.initialCopySeconds),
              ]),
            ),
          ].join("\n\n"),
        );
      },
    );
}

function registerCheck(noun: Command): void {
  verb(noun, "check", "let an appliance try every way that it needs, hop by hop, and its rights; says what mends what fails")
    .option("--machine <id...>", "also the ways of these machines' agents, by their ids")
    .option("--job <job>", "show what a check of before found, by the job's id, instead of checking")
    .option("--html <file>", "also write the result as a page that can be sent")
    .action(async (options: CheckOptions) => {
      await using session = await openSession(options);
      const { report, subject } =
        options.job === undefined ? await check(session, options) : await readCheck(session, options, options.job);
      printAnswer(session.style, report, () => reportText(report));
      if (options.html !== undefined)
        await writeCheckPage(options.html, { subject: `${subject}, vault ${options.vault}`, checks: report.checks });
      if (!report.passed) process.exitCode = exitWithFailures;
    });
}

interface CheckOptions extends Options {
  readonly machine?: readonly string[];
  readonly job?: string;
  readonly html?: string;
}

interface Checked {
  readonly report: Report;
  readonly subject: string;
}

async function check(session: Session, options: CheckOptions): Promise<Checked> {
  const fabric = await findFabric(session, options);
  const report = reportShape.parse(await order(session, "check", `${fabric.id}/checkNetwork`, { machineIds: options.machine ?? [] }));
  return { report, subject: `appliance ${fabric.properties.friendlyName}` };
}

async function readCheck({ arm }: Session, { vault }: Options, job: string): Promise<Checked> {
  const { targetObjectName, watari } = checkJobShape.parse(
    await arm.get(`${vaultPath(arm.groupPath, vault)}/replicationJobs/${job}`),
  ).properties;
  if (watari.networkReport !== undefined) return { report: watari.networkReport, subject: `appliance ${targetObjectName}` };
  throw new Fault("InputInvalid", `the job ${job} has no result of a check`, {
    causes: ["it is a job of another kind", "it has not ended, or it failed"],
    action: "watari job list --vault NAME; take one of kind CheckNetwork that has succeeded",
  });
}

function reportText({ checks }: Report): string {
  const rows = [...Map.groupBy(checks, ({ id }) => id.slice(0, id.lastIndexOf("/")))].map(([id, hops]) => {
    const last = hops.find(({ verdict }) => verdict === "fail") ?? hops.findLast(({ verdict }) => verdict === "pass") ?? hops[0];
    const took = Math.round(hops.reduce((sum, { latencyMs }) => sum + latencyMs, 0));
    const mark = hops.some(({ verdict }) => verdict === "fail") ? "✖" : "✔";
    return [mark, last?.role ?? "", id, last?.to ?? "", `${took} ms`, last?.answer ?? ""];
  });
  const failed = checks.filter(({ verdict }) => verdict === "fail");
  const repairs = failed.map(({ id, repair }) => `✖ ${id}\n    repair    ${repair ?? "-"}`);
  return [formatTable(["", "FROM", "TO", "HOST", "TOOK", "LAST HOP"], rows), ...repairs].join("\n");
}

function verb(noun: Command, name: string, description: string): Command {
  return withHubOptions(noun.command(name).description(description))
    .requiredOption("--vault <name>", "name of the vault")
    .option("--appliance <name>", "name or id of the appliance; not needed where there is one");
}

function withPlace(command: Command): Command {
  return command
    .requiredOption("--line <line>", "agents, storage or machine")
    .option("--machine <id>", "id of the machine, with --line machine")
    .option("--days <days>", "days of the window: mon-fri, or sat,sun (default: every day)")
    .option("--from <time>", "begin of the window, HH:MM")
    .option("--until <time>", "end of the window, HH:MM; not later than --from: on the next day");
}

function placeOf(options: PlaceOptions): object {
  if (!limitScopes.some((scope) => scope === options.line))
    throw new Fault("InputInvalid", `could not read --line ${options.line}`, { action: `give one of: ${limitScopes.join(", ")}` });
  const window = parseWindow(options);
  return {
    scope: options.line,
    ...(options.machine === undefined ? {} : { machineId: options.machine }),
    ...(window === undefined ? {} : { window }),
  };
}

async function changeLimits(options: Options, change: object): Promise<void> {
  await using session = await openSession(options);
  const fabric = await findFabric(session, options);
  const limits = limitsShape.parse(await order(session, "limits", `${fabric.id}/changeLineLimits`, change));
  printAnswer(session.style, limits, () => limitsText(limits));
}

async function order({ arm }: Session, title: string, path: string, body: object): Promise<unknown> {
  const progress = openProgress(title);
  try {
    return await arm.change("POST", path, body, ({ status, percent = 0 }) => progress.update(percent, status));
  } finally {
    progress.finish();
  }
}

function limitsText({ timeZone, limits, lines }: Limits): string {
  const nameOf = ({ scope, machineId }: { readonly scope: string; readonly machineId?: string | undefined }): string =>
    machineId === undefined ? scope : `machine ${machineId}`;
  const shown = formatTable(
    ["LINE", "IN FORCE", "BECAUSE", "NOW", "WAITED"],
    lines.map((line) => [
      ...[nameOf(line), rateText(line.bytesPerSecond), line.reason, rateText(line.measuredBytesPerSecond)],
      `${Math.round(line.waitedShare * 100)} %`,
    ]),
  );
  const set = formatTable(
    ["LINE", "WINDOW", "LIMIT"],
    limits.map((limit) => [
      nameOf(limit),
      limit.window === undefined ? "always" : `${limit.window.days.join(",")} ${limit.window.from} to ${limit.window.until}`,
      limit.bytesPerSecond === "unlimited" ? "unlimited" : rateText(limit.bytesPerSecond),
    ]),
  );
  return `${shown}\n\ntime zone ${timeZone}\n${limits.length === 0 ? "no limits are set" : set}`;
}

async function findFabric({ arm }: Session, { vault, appliance }: Options): Promise<Fabric> {
  const fabrics = z.array(fabricShape).parse(await arm.list(`${vaultPath(arm.groupPath, vault)}/replicationFabrics`));
  const found = fabrics.filter(
    ({ name, properties }) => appliance === undefined || [name, properties.friendlyName].some((each) => each === appliance),
  );
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  const message = found.length === 0 ? `the vault ${vault} has no such appliance` : "more than one appliance could be meant";
  throw new Fault("InputInvalid", message, {
    evidence: { appliances: fabrics.map(({ properties }) => properties.friendlyName) },
    action: "name one: --appliance NAME",
  });
}
