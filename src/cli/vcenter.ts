// `watari vcenter`: vCenters of a vault's appliances: list, add, remove. Credentials are on the appliance; here they are named.

import type { Command } from "commander";
import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import { formatTable, printAnswer } from "./output.ts";
import { openSession, withHubOptions, type Session } from "./session.ts";

interface Options {
  readonly json?: boolean;
  readonly profile?: string;
  readonly vault: string;
  readonly appliance?: string;
}

const vcenterShape = z.looseObject({
  name: z.string(),
  properties: z.looseObject({
    friendlyName: z.string(),
    ipAddress: z.string(),
    port: z.string(),
    discoveryStatus: z.string(),
    fabricArmResourceName: z.string(),
    healthErrors: z.array(z.looseObject({ errorMessage: z.string() })).default([]),
  }),
});
const fabricShape = z.looseObject({
  name: z.string(),
  properties: z.looseObject({
    friendlyName: z.string(),
    customDetails: z.looseObject({ runAsAccounts: z.array(z.looseObject({ accountId: z.string(), accountName: z.string() })) }),
  }),
});
type Fabric = z.infer<typeof fabricShape>;

export function registerVcenterCommand(program: Command): void {
  const noun = program.command("vcenter").description("vCenters of a vault's appliances");
  withHubOptions(noun.command("list"))
    .description("vCenters with their appliance and how they answered last")
    .requiredOption("--vault <name>", "name of the vault")
    .action(async (options: Options) => {
      await using session = await openSession(options);
      const vcenters = z.array(vcenterShape).parse(await session.arm.list(`${vaultPath(session, options.vault)}/replicationvCenters`));
      printAnswer(session.style, vcenters, () =>
        formatTable(
          ["NAME", "ADDRESS", "STATUS", "APPLIANCE"],
          vcenters.map(({ name, properties: { ipAddress, port, discoveryStatus, healthErrors, fabricArmResourceName } }) => [
            name,
            `${ipAddress}:${port}`,
            healthErrors[0]?.errorMessage ?? discoveryStatus,
            fabricArmResourceName,
          ]),
        ),
      );
    });
  addAdd(withHubOptions(noun.command("add").argument("<name>")));
  withHubOptions(noun.command("remove").argument("<name>"))
    .description("let the appliance forget a vCenter and the machines that it shows")
    .requiredOption("--vault <name>", "name of the vault")
    .option("--appliance <name>", "name or id of the appliance; not needed where there is one")
    .action(async (name: string, options: Options) => {
      await using session = await openSession(options);
      const fabric = await findFabric(session, options);
      await session.arm.change("DELETE", vcenterPath(session, options.vault, fabric, name));
      printAnswer(session.style, { removed: name }, () => `${name} is removed`);
    });
}

function addAdd(command: Command): void {
  command
    .description("let an appliance log in to a vCenter and read its machines")
    .requiredOption("--vault <name>", "name of the vault")
    .requiredOption("--address <host>", "name or address of the vCenter")
    .option("--port <port>", "its port", "443")
    .requiredOption("--credential <name>", "name of the appliance's account, made there with `watari appliance credential add`")
    .option("--appliance <name>", "name or id of the appliance; not needed where there is one")
    .option("--thumbprint <sha256>", "SHA-256 of the vCenter's certificate, where the appliance does not know its authority")
    .action(
      async (
        name: string,
        options: Options & { readonly address: string; readonly port: string; readonly credential: string; readonly thumbprint?: string },
      ) => {
        await using session = await openSession(options);
        const fabric = await findFabric(session, options);
        const accounts = fabric.properties.customDetails.runAsAccounts;
        const account = accounts.find(({ accountId, accountName }) => [accountId, accountName].includes(options.credential));
        if (account === undefined)
          throw new Fault("NotFound", `the appliance ${fabric.properties.friendlyName} has no account ${options.credential}`, {
            evidence: { known: accounts.map(({ accountName }) => accountName) },
            action: "add it on the appliance: watari appliance credential add --name NAME --kind vcenter --user USER",
          });
        const properties = {
          ...{ friendlyName: name, ipAddress: options.address, port: options.port, runAsAccountId: account.accountId },
          ...(options.thumbprint === undefined ? {} : { watariThumbprint: options.thumbprint }),
        };
        const added = await session.arm.change("PUT", vcenterPath(session, options.vault, fabric, name), { properties });
        printAnswer(session.style, added, () => `${name} answered and was kept`);
      },
    );
}

async function findFabric(session: Session, { vault, appliance }: Options): Promise<Fabric> {
  const fabrics = z.array(fabricShape).parse(await session.arm.list(`${vaultPath(session, vault)}/replicationFabrics`));
  const found = fabrics.filter(
    ({ name, properties }) => appliance === undefined || [name, properties.friendlyName].some((each) => each === appliance),
  );
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  throw new Fault(
    "InputInvalid",
    found.length === 0 ? `the vault ${vault} has no such appliance` : "more than one appliance could be meant",
    {
      evidence: { appliances: fabrics.map(({ properties }) => properties.friendlyName) },
      action: "name one: --appliance NAME",
    },
  );
}

function vaultPath(session: Session, vault: string): string {
  return `${session.arm.groupPath}/providers/Microsoft.RecoveryServices/vaults/${encodeURIComponent(vault)}`;
}

function vcenterPath(session: Session, vault: string, { name: fabric }: Fabric, name: string): string {
  return `${vaultPath(session, vault)}/replicationFabrics/${fabric}/replicationvCenters/${encodeURIComponent(name)}`;
}
