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

function machinePath(groupPath: string, name?: string): string {
  return `${groupPath}/providers/Microsoft.Compute/virtualMachines${name === undefined ? "" : `/${name}`}`;
}
