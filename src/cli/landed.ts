// `watari landed`: machines on the landing side: list, show, start, stop, console, screen, remove.

import type { Command } from "commander";
import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import { registerConsole } from "./landed-console.ts";
import { registerScreen } from "./landed-screen.ts";
import { formatTable, printAnswer } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";

interface Options {
  readonly json?: boolean;
  readonly profile?: string;
}

const machineShape = z.looseObject({
  id: z.string(),
  name: z.string(),
  properties: z.looseObject({
    instanceView: z.looseObject({ statuses: z.array(z.looseObject({ code: z.string() })) }).optional(),
    watari: z.looseObject({ purpose: z.string().optional(), addresses: z.array(z.string()).optional() }).optional(),
  }),
});

export function registerLandedCommand(program: Command): void {
  const noun = program.command("landed").description("landed machines");
  withHubOptions(noun.command("list"))
    .description("landed machines with their power state and addresses")
    .action(async (options: Options) => {
      await using session = await openSession(options);
      const machines = z.array(machineShape).parse(await session.arm.list(machinePath(session.arm.groupPath)));
      printAnswer(session.style, machines, () =>
        formatTable(
          ["NAME", "PURPOSE", "POWER", "ADDRESSES"],
          machines.map(({ name, properties }) => [
            name,
            properties.watari?.purpose ?? "",
            properties.instanceView?.statuses.find(({ code }) => code.startsWith("PowerState/"))?.code.replace("PowerState/", "") ?? "",
            properties.watari?.addresses?.join(" ") ?? "",
          ]),
        ),
      );
    });
  withHubOptions(noun.command("show").argument("<name>"))
    .description("one landed machine")
    .action(async (name: string, options: Options) => {
      await using session = await openSession(options);
      const machine = await session.arm.get(machinePath(session.arm.groupPath, name));
      printAnswer(session.style, machine, () => JSON.stringify(machine, undefined, 2));
    });
  for (const [verb, action, description] of [
    ["start", "start", "switch a landed machine on"],
    ["stop", "powerOff", "switch a landed machine off"],
  ] as const)
    withHubOptions(noun.command(verb).argument("<name>"))
      .description(description)
      .action(async (name: string, options: Options) => {
        await using session = await openSession(options);
        await session.arm.change("POST", `${machinePath(session.arm.groupPath, name)}/${action}`, {});
        printAnswer(session.style, { name, done: verb }, () => `${verb} ${name}: done`);
      });
  registerAutostart(noun);
  registerExport(noun);
  registerConsole(noun, machinePath);
  registerScreen(noun, machinePath);
  withHubOptions(noun.command("remove").argument("<name>"))
    .description("end a landed machine and delete its disks")
    .option("--yes", "do it without asking: the disks are gone after this")
    .action(async (name: string, options: Options & { readonly yes?: boolean }) => {
      if (options.yes !== true)
        throw new Fault("InputInvalid", `did not remove ${name}: its disks would be deleted`, {
          action: `watari landed remove ${name} --yes`,
        });
      await using session = await openSession(options);
      await session.arm.change("DELETE", machinePath(session.arm.groupPath, name));
      printAnswer(session.style, { removed: name }, () => `${name} is removed`);
    });
}

function registerAutostart(noun: Command): void {
  withHubOptions(noun.command("autostart").argument("<name>"))
    .description("whether a landed machine starts when its host was started again (after a commit it does, unless told)")
    .requiredOption("--set <on|off>", "on or off", parseSwitch)
    .option("--order <number>", "1 to 1000; machines of a lower one run first", Number, 100)
    .option("--delay-seconds <seconds>", "0 to 600, once they run", Number, 0)
    .action(async (name: string, options: Options & { readonly set: boolean; readonly order: number; readonly delaySeconds: number }) => {
      await using session = await openSession(options);
      const { set: isOn, order, delaySeconds } = options;
      const set = await session.arm.change("POST", `${machinePath(session.arm.groupPath, name)}/setAutostart`, {
        isOn,
        order,
        delaySeconds,
      });
      printAnswer(session.style, set, () => `autostart of ${name}: ${isOn ? `on, order ${order}, delay ${delaySeconds} s` : "off"}`);
    });
}

const definitionShape = z.object({ fileName: z.string(), definition: z.string() });

function registerExport(noun: Command): void {
  const command = noun.command("export").argument("<name>");
  withHubOptions(command)
    .description("the definition by which another program of its host runs a landed machine, on the disks that it has")
    .addOption(command.createOption("--format <format>", "of the definition").choices(["libvirt"]).default("libvirt"))
    .action(async (name: string, options: Options & { readonly format: string }) => {
      await using session = await openSession(options);
      const path = `${machinePath(session.arm.groupPath, name)}/exportDefinition`;
      const answer = definitionShape.parse(await session.arm.change("POST", path, { format: options.format }));
      printAnswer(session.style, answer, () => answer.definition.trimEnd());
    });
}

function parseSwitch(text: string): boolean {
  if (text === "on" || text === "off") return text === "on";
  throw new Fault("InputInvalid", `could not read ${text}`, { action: "write on or off" });
}

function machinePath(groupPath: string, name?: string): string {
  return `${groupPath}/providers/Microsoft.Compute/virtualMachines${name === undefined ? "" : `/${name}`}`;
}
