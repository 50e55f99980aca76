// `watari network`: virtual networks of the landing zone, in which private endpoints and landed machines live.

import type { Command } from "commander";
import { z } from "zod";
import { formatTable, printAnswer } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";

const networkShape = z.object({
  id: z.string(),
  name: z.string(),
  properties: z.object({
    addressSpace: z.object({ addressPrefixes: z.array(z.string()) }),
    subnets: z.array(z.object({ name: z.string(), properties: z.object({ addressPrefix: z.string() }) })),
  }),
});

interface CreateOptions {
  readonly cidr: string;
  readonly subnet: string;
  readonly json?: boolean;
  readonly profile?: string;
}

export function registerNetworkCommand(program: Command): void {
  const noun = program.command("network").description("virtual networks of the landing zone");
  withHubOptions(noun.command("create").argument("<name>", "name of the network, as the hub's configuration knows it"))
    .description("declare a network with one subnet; safe to repeat")
    .requiredOption("--cidr <range>", "address range, for example 10.200.0.0/24")
    .option("--subnet <name>", "name of its subnet", "default")
    .action(async (name: string, options: CreateOptions) => {
      await using session = await openSession(options);
      const created = await session.arm.change("PUT", networkPath(session.arm.groupPath, name), {
        location: session.arm.location,
        properties: {
          addressSpace: { addressPrefixes: [options.cidr] },
          subnets: [{ name: options.subnet, properties: { addressPrefix: options.cidr } }],
        },
      });
      printAnswer(session.style, created, () => `network ${name}: ${options.cidr}`);
    });
  withHubOptions(noun.command("list"))
    .description("networks with their ranges")
    .action(async (options: { readonly json?: boolean; readonly profile?: string }) => {
      await using session = await openSession(options);
      const networks = z.array(networkShape).parse(await session.arm.list(networkPath(session.arm.groupPath)));
      printAnswer(session.style, networks, () =>
        formatTable(
          ["NAME", "RANGE", "SUBNETS"],
          networks.map((network) => [
            network.name,
            network.properties.addressSpace.addressPrefixes.join(","),
            network.properties.subnets.map((subnet) => subnet.name).join(","),
          ]),
        ),
      );
    });
}

function networkPath(groupPath: string, name?: string): string {
  return `${groupPath}/providers/Microsoft.Network/virtualNetworks${name === undefined ? "" : `/${name}`}`;
}
