// `watari vault`: vaults with their five private names, registration keys for appliances, and the DNS settings to hand out.

import type { Command } from "commander";
import { z } from "zod";
import { writeFileAtomic } from "../base/atomic-file.ts";
import { systemRandom } from "../base/random.ts";
import { registrationKeyShape } from "../contract/appliance-protocol.ts";
import type { ArmClient } from "./arm-client.ts";
import { formatTable, printAnswer, say } from "./output.ts";
import { createPrivateEndpoint, removePrivateEndpoint } from "./private-endpoint.ts";
import { openSession, withHubOptions } from "./session.ts";
import { storageAccountPath } from "./storage.ts";
import { registerVaultForwarders } from "./vault-forwarders.ts";
import { registerVaultKeyCommands } from "./vault-key.ts";

interface HubOptions {
  readonly json?: boolean;
  readonly profile?: string;
}

interface CreateOptions extends HubOptions {
  readonly network: string;
  readonly subnet: string;
  readonly storage: string;
}

/** Built-in role "Storage Blob Data Contributor". */
const blobDataContributorRoleId = "ba92f5b4-2d11-453d-a403-e96b0029c9fe";

const vaultShape = z.object({
  id: z.string(),
  name: z.string(),
  identity: z.object({ principalId: z.string() }).optional(),
  properties: z.looseObject({ provisioningState: z.string().optional(), publicNetworkAccess: z.string().optional() }),
});

export function registerVaultCommand(program: Command): void {
  const noun = program.command("vault").description("Recovery Services vaults");
  withHubOptions(noun.command("create").argument("<name>"))
    .description("create a vault over a storage account, grant its identity the blob role, give it its private endpoint; safe to repeat")
    .requiredOption("--storage <account>", "storage account that holds the packs")
    .requiredOption("--network <name>", "network that gets the private endpoint")
    .option("--subnet <name>", "subnet of that network", "default")
    .action(async (name: string, options: CreateOptions) => await createVault(name, options));
  withHubOptions(noun.command("remove").argument("<name>"))
    .description("remove a vault that protects no machine any more, with its private endpoint and zone")
    .action(async (name: string, options: { readonly json?: boolean; readonly profile?: string }) => {
      await using session = await openSession(options);
      const { arm } = session;
      await removePrivateEndpoint(arm, { name: `${name}-pe`, zone: `privatelink.siterecovery.${arm.domain}` });
      await arm.change("DELETE", vaultPath(arm.groupPath, name));
      printAnswer(session.style, { removed: name }, () => `vault ${name} is removed`);
    });
  withHubOptions(noun.command("list"))
    .description("vaults")
    .action(async (options: HubOptions) => {
      await using session = await openSession(options);
      const vaults = z.array(vaultShape).parse(await session.arm.list(vaultPath(session.arm.groupPath)));
      printAnswer(session.style, vaults, () =>
        formatTable(
          ["NAME", "STATE", "PUBLIC ACCESS"],
          vaults.map(({ name, properties }) => [name, properties.provisioningState ?? "", properties.publicNetworkAccess ?? ""]),
        ),
      );
    });
  registerVaultKeyCommands(noun, vaultPath);
  registerVaultForwarders(noun, vaultPath);
  withHubOptions(noun.command("registration-key").argument("<vault>"))
    .description("make a registration key for one appliance: works once, for 5 days at most; the file is a secret until used")
    .requiredOption("--out <file>", "file to write, readable by its owner only")
    .option("--valid-seconds <seconds>", "how long it works, up to 432000 (5 days)", Number)
    .action(async (name: string, options: HubOptions & { readonly out: string; readonly validSeconds?: number }) => {
      await using session = await openSession(options);
      const key = registrationKeyShape.parse(
        await session.arm.change(
          "POST",
          `${vaultPath(session.arm.groupPath, name)}/registrationKeys`,
          options.validSeconds === undefined ? {} : { validSeconds: options.validSeconds },
        ),
      );
      await writeFileAtomic(options.out, `${JSON.stringify(key, undefined, 2)}\n`, { mode: 0o600 });
      printAnswer(
        session.style,
        { file: options.out, keyId: key.keyId, expiresAt: key.expiresAt },
        () => `registration key in ${options.out}, until ${key.expiresAt}`,
      );
    });
}

async function createVault(name: string, options: CreateOptions): Promise<void> {
  await using session = await openSession(options);
  const { arm } = session;
  const resourceId = vaultPath(arm.groupPath, name);
  const storageId = storageAccountPath(arm.groupPath, options.storage);
  const created = vaultShape.parse(
    await arm.change("PUT", resourceId, {
      location: arm.location,
      identity: { type: "SystemAssigned" },
      sku: { name: "Standard" },
      properties: { publicNetworkAccess: "Disabled", watariStorageAccountId: storageId },
    }),
  );
  await grantBlobRole(arm, storageId, created.identity?.principalId);
  const names = await createPrivateEndpoint(arm, {
    name: `${name}-pe`,
    resourceId,
    groupId: "AzureSiteRecovery",
    network: options.network,
    subnet: options.subnet,
    zone: `privatelink.siterecovery.${arm.domain}`,
  });
  printAnswer(session.style, { id: resourceId, names }, () => `vault ${name} is ready`);
}

/** A grant that stands already is left as it is: the same principal and role make the same assignment. */
async function grantBlobRole(arm: ArmClient, storageId: string, principalId: string | undefined): Promise<void> {
  if (principalId === undefined) return;
  const assignments = z
    .array(z.object({ properties: z.object({ principalId: z.string(), roleDefinitionId: z.string() }) }))
    .parse(await arm.list(`${storageId}/providers/Microsoft.Authorization/roleAssignments`));
  const isGranted = assignments.some(
    ({ properties }) => properties.principalId === principalId && properties.roleDefinitionId.endsWith(blobDataContributorRoleId),
  );
  if (isGranted) return;
  const roleDefinitionId = `/providers/Microsoft.Authorization/roleDefinitions/${blobDataContributorRoleId}`;
  await arm.change("PUT", `${storageId}/providers/Microsoft.Authorization/roleAssignments/${systemRandom.uuid()}`, {
    properties: { principalId, roleDefinitionId, principalType: "ServicePrincipal" },
  });
  say("granted Storage Blob Data Contributor on the storage account to the vault's identity");
}

export function vaultPath(groupPath: string, name?: string): string {
  return `${groupPath}/providers/Microsoft.RecoveryServices/vaults${name === undefined ? "" : `/${name}`}`;
}
