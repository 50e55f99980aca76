// `watari project`: a migration project with its private endpoint.

import type { Command } from "commander";
import { z } from "zod";
import { formatTable, printAnswer } from "./output.ts";
import { createPrivateEndpoint, removePrivateEndpoint } from "./private-endpoint.ts";
import { openSession, withHubOptions } from "./session.ts";

interface CreateOptions {
  readonly network: string;
  readonly subnet: string;
  readonly json?: boolean;
  readonly profile?: string;
}

const projectShape = z.object({
  name: z.string(),
  properties: z.object({ provisioningState: z.string().optional(), publicNetworkAccess: z.string().optional() }),
});

export function registerProjectCommand(program: Command): void {
  const noun = program.command("project").description("migration projects");
  withHubOptions(noun.command("create").argument("<name>"))
    .description("create a project with private endpoint, DNS zone and records; public access off; safe to repeat")
    .requiredOption("--network <name>", "network that gets the private endpoint")
    .option("--subnet <name>", "subnet of that network", "default")
    .action(async (name: string, options: CreateOptions) => {
      await using session = await openSession(options);
      const { arm } = session;
      const resourceId = projectPath(arm.groupPath, name);
      await arm.change("PUT", resourceId, { location: arm.location, properties: { publicNetworkAccess: "Disabled" } });
      const names = await createPrivateEndpoint(arm, {
        name: `${name}-pe`,
        resourceId,
        groupId: "Default",
        network: options.network,
        subnet: options.subnet,
        zone: `privatelink.prod.migration.${arm.domain}`,
      });
      printAnswer(session.style, { id: resourceId, names }, () => `project ${name} is ready`);
    });
  withHubOptions(noun.command("remove").argument("<name>"))
    .description("remove a project with its private endpoint and zone")
    .action(async (name: string, options: { readonly json?: boolean; readonly profile?: string }) => {
      await using session = await openSession(options);
      const { arm } = session;
      await removePrivateEndpoint(arm, { name: `${name}-pe`, zone: `privatelink.prod.migration.${arm.domain}` });
      await arm.change("DELETE", projectPath(arm.groupPath, name));
      printAnswer(session.style, { removed: name }, () => `project ${name} is removed`);
    });
  withHubOptions(noun.command("list"))
    .description("projects")
    .action(async (options: { readonly json?: boolean; readonly profile?: string }) => {
      await using session = await openSession(options);
      const projects = z.array(projectShape).parse(await session.arm.list(projectPath(session.arm.groupPath)));
      printAnswer(session.style, projects, () =>
        formatTable(
          ["NAME", "STATE", "PUBLIC ACCESS"],
          projects.map(({ name, properties }) => [name, properties.provisioningState ?? "", properties.publicNetworkAccess ?? ""]),
        ),
      );
    });
}

function projectPath(groupPath: string, name?: string): string {
  return `${groupPath}/providers/Microsoft.Migrate/migrateProjects${name === undefined ? "" : `/${name}`}`;
}
