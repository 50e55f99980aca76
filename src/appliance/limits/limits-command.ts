// `watari appliance limits …`: how fast bytes may pass the lines of this appliance, by line, machine and time of day, live.

import type { Command } from "commander";
import { formatTable, printAnswer, rateText } from "../../cli/output.ts";
import type { AdminResponse } from "../../contract/appliance-admin.ts";
import { Fault } from "../../contract/errors.ts";
import type { MachineId } from "../../contract/ids.ts";
import { parseRate, parseWindow } from "../../contract/limit-text.ts";
import { limitScopes, type LimitPlace, type LimitScope } from "../../contract/line-limits.ts";
import { callAppliance } from "../admin/admin-client.ts";
import { findMachine } from "./find-machine.ts";
import { windowText } from "./limit-in-force.ts";

type Verb = (parent: Command, name: string, description: string) => Command;

interface Common {
  readonly state: string;
  readonly json: boolean;
}

interface PlaceOptions extends Common {
  readonly line: string;
  readonly machine?: string;
  readonly days?: string;
  readonly from?: string;
  readonly until?: string;
}

const explanation = `
A limit holds on one of three lines:
  agents    all agents of the site to this appliance, together
  storage   this appliance to and from the storage account
  machine   one agent to this appliance (give --machine)
A limit with a window (--days, --from, --until, in the site's time zone) outranks one without while the window is open; of
several open windows the lowest limit holds. A change is in force at once, nothing is restarted and nothing is sent again:
who is too fast waits. Limits count bytes on the wire, after compression.

Examples:
  watari appliance limits set --line storage --rate 200mbit
  watari appliance limits set --line storage --rate 40mbit --days mon-fri --from 08:00 --until 18:00
  watari appliance limits set --line machine --machine ledger1 --rate 5MB
  watari appliance limits remove --line storage --days mon-fri --from 08:00 --until 18:00
  watari appliance limits time-zone Europe/Berlin`;

export function addLimitsCommands(verb: Verb, noun: Command): void {
  noun.addHelpText("after", explanation);
  verb(noun, "show", "limits, what is in force now and why, and what passes each line").action(async (options: Common) => {
    show(options, await callAppliance(options.state, "showLimits", {}));
  });
  withPlace(verb(noun, "set", "set a limit, or replace the one of the same line and window"))
    .requiredOption("--rate <rate>", 'for example 200mbit, 25MB, 10MiB (each a second), or "unlimited"')
    .addHelpText("after", explanation)
    .action(async (options: PlaceOptions & { readonly rate: string }) => {
      const limit = { ...(await placeOf(options)), bytesPerSecond: parseRate("--rate", options.rate) };
      show(options, await callAppliance(options.state, "changeLimits", { set: [limit] }));
    });
  withPlace(verb(noun, "remove", "remove the limit of a line and window")).action(async (options: PlaceOptions) => {
    show(options, await callAppliance(options.state, "changeLimits", { remove: [await placeOf(options)] }));
  });
  verb(noun, "time-zone", "the time zone in which windows are meant")
    .argument("<name>", "a name of the IANA database, for example Europe/Berlin")
    .action(async (timeZone: string, options: Common) => {
      show(options, await callAppliance(options.state, "changeLimits", { timeZone }));
    });
}

function withPlace(command: Command): Command {
  return command
    .requiredOption("--line <line>", "agents, storage or machine")
    .option("--machine <name>", "host name or id of the machine, with --line machine")
    .option("--days <days>", "days of the window: mon-fri, or sat,sun (default: every day)")
    .option("--from <time>", "begin of the window, HH:MM")
    .option("--until <time>", "end of the window, HH:MM; not later than --from: on the next day");
}

async function placeOf(options: PlaceOptions): Promise<LimitPlace> {
  const scope = limitScopes.find((each) => each === options.line);
  if (scope === undefined) throw unreadable("--line", options.line, `give one of: ${limitScopes.join(", ")}`);
  const window = parseWindow(options);
  const machineId = await machineOf(scope, options);
  return { scope, ...(machineId === undefined ? {} : { machineId }), ...(window === undefined ? {} : { window }) };
}

async function machineOf(scope: LimitScope, { machine, state }: PlaceOptions): Promise<MachineId | undefined> {
  if ((scope === "machine") !== (machine !== undefined))
    throw new Fault("InputInvalid", "could not tell which line is meant: --machine and --line machine belong together", {
      action: "give both, or neither",
    });
  if (machine === undefined) return undefined;
  return (await findMachine(state, machine)).machineId;
}

function unreadable(option: string, given: string, action: string): Fault {
  return new Fault("InputInvalid", `could not read ${option} ${given}`, { action });
}

function show(options: Common, state: AdminResponse<"showLimits">): void {
  printAnswer({ asJson: options.json }, state, () => limitsText(state));
}

function limitsText({ timeZone, limits, lines }: AdminResponse<"showLimits">): string {
  const inForce = formatTable(
    ["line", "in force", "because", "until", "now", "waited"],
    lines.map((line) => [
      line.machineId === undefined ? line.scope : `machine ${line.machineId}`,
      rateText(line.bytesPerSecond),
      line.reason,
      line.untilTime ?? "-",
      rateText(line.measuredBytesPerSecond),
      `${Math.round(line.waitedShare * 100)} %`,
    ]),
  );
  const set = formatTable(
    ["line", "window", "limit"],
    limits.map((limit) => [
      limit.machineId === undefined ? limit.scope : `machine ${limit.machineId}`,
      limit.window === undefined ? "always" : windowText(limit.window),
      limit.bytesPerSecond === "unlimited" ? "unlimited" : rateText(limit.bytesPerSecond),
    ]),
  );
  return `${inForce}\n\ntime zone ${timeZone}\n${limits.length === 0 ? "no limits are set" : set}`;
}
