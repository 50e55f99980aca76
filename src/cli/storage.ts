// `watari storage`: storage accounts that hold the packs, with their private endpoint.

import type { Command } from "commander";
import { printAnswer } from "./output.ts";
import { createPrivateEndpoint, removePrivateEndpoint } from "./private-endpoint.ts";
import { openSession, withHubOptions } from "./session.ts";

interface CreateOptions {
  readonly network: string;
  readonly subnet: string;
  readonly json?: boolean;
  readonly profile?: string;
}

export function registerStorageCommand(program: Command): void {
  const noun = program.command("storage").description("storage accounts");
  withHubOptions(noun.command("create").argument("<name>", "3 to 24 lower-case letters and digits"))
    .description("create a storage account with its blob private endpoint; public access off; safe to repeat")
    .requiredOption("--network <name>", "network that gets the private endpoint")
    .option("--subnet <name>", "subnet of that network", "default")
    .action(async (name: string, options: CreateOptions) => {
      await using session = await openSession(options);
      const { arm } = session;
      const resourceId = storageAccountPath(arm.groupPath, name);
      await arm.change("PUT", resourceId, {
        location: arm.location,
        kind: "StorageV2",
        sku: { name: "Standard_LRS" },
        properties: { publicNetworkAccess: "Disabled" },
      });
      const names = await createPrivateEndpoint(arm, {
        name: `${name}-pe`,
        resourceId,
        groupId: "blob",
        network: options.network,
        subnet: options.subnet,
        zone: `privatelink.blob.${arm.domain}`,
      });
      printAnswer(session.style, { id: resourceId, names }, () => `storage account ${name} is ready`);
    });
  withHubOptions(noun.command("remove").argument("<name>"))
    .description("remove a storage account with its private endpoint and zone, and everything stored in it")
    .action(async (name: string, options: { readonly json?: boolean; readonly profile?: string }) => {
      await using session = await openSession(options);
      const { arm } = session;
      await removePrivateEndpoint(arm, { name: `${name}-pe`, zone: `privatelink.blob.${arm.domain}` });
      await arm.change("DELETE", storageAccountPath(arm.groupPath, name));
      printAnswer(session.style, { removed: name }, () => `storage account ${name} is removed`);
    });
}

export function storageAccountPath(groupPath: string, name: string): string {
  return `${groupPath}/providers/Microsoft.Storage/storageAccounts/${name}`;
}
