// `watari vault dns-forwarders`: what the customer's own DNS server needs so that it asks the landing zone for a vault's private names.

import { isIP } from "node:net";
import { Option, type Command } from "commander";
import { z } from "zod";
import { forwarderForms, zonesToForward } from "../connectivity/plan/renderings/forwarders.ts";
import { Fault } from "../contract/errors.ts";
import { printAnswer } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";

const settingsShape = z.looseObject({ value: z.array(z.looseObject({ name: z.string() })) });
const forms = Object.keys(forwarderForms) as (keyof typeof forwarderForms)[]; // The table's own keys.

interface ForwarderOptions {
  readonly json?: boolean;
  readonly profile?: string;
  readonly resolver: readonly string[];
  readonly format: keyof typeof forwarderForms;
}

export function registerVaultForwarders(noun: Command, pathOf: (groupPath: string, vault: string) => string): void {
  withHubOptions(noun.command("dns-forwarders").argument("<vault>"))
    .description("conditional forwarders for your own DNS server: the vault's private zones, asked of the landing zone's resolver")
    .requiredOption("--resolver <address...>", "addresses at which the landing zone's resolver answers your DNS server")
    .addOption(new Option("--format <format>", "form of your DNS server").choices(forms).default("bind"))
    .action(async (name: string, options: ForwarderOptions) => {
      for (const resolver of options.resolver)
        if (isIP(resolver) === 0) throw new Fault("InputInvalid", `could not write forwarders: ${resolver} is not an IP address`);
      await using session = await openSession(options);
      const settings = settingsShape.parse(await session.arm.change("POST", `${pathOf(session.arm.groupPath, name)}/dnsSettings`, {}));
      const zones = zonesToForward(settings.value.map((each) => each.name));
      if (zones.length === 0)
        throw new Fault("NotFound", `vault ${name} has no private names`, { action: "create its private endpoint: watari vault create" });
      const { fileName, write } = forwarderForms[options.format];
      const text = `${write({ zones, servers: options.resolver }).join("\n")}\n`;
      printAnswer(session.style, { format: options.format, fileName, zones, servers: options.resolver, text }, () => text.trimEnd());
    });
}
