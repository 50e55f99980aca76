// `watari role`: who may do what, at which scope.

import type { Command } from "commander";
import { z } from "zod";
import { systemRandom } from "../base/random.ts";
import { Fault } from "../contract/errors.ts";
import type { ArmClient } from "./arm-client.ts";
import { findIdentity, listIdentities } from "./identity.ts";
import { formatTable, printAnswer } from "./output.ts";
import { openSession, withHubOptions } from "./session.ts";

interface RoleOptions {
  readonly json?: boolean;
  readonly profile?: string;
  readonly scope?: string;
  readonly to?: string;
  readonly from?: string;
}

const provider = "providers/Microsoft.Authorization";
const roleShape = z.object({
  id: z.string(),
  name: z.string(),
  properties: z.looseObject({ roleName: z.string(), description: z.string().optional() }),
});
const assignmentShape = z.object({
  id: z.string(),
  properties: z.object({ principalId: z.string(), principalType: z.string(), roleDefinitionId: z.string(), scope: z.string() }),
});
type Role = z.infer<typeof roleShape>;

const exampleText = `
  watari role assign Reader --to anna@example.com
  watari role assign "Site Recovery Operator" --to movers --scope /subscriptions/…/resourceGroups/watari
  watari role list --to anna@example.com            with what the groups give
  watari role definitions                           what each role is for
Without --scope a role counts for everything in the hub.`;

export function registerRoleCommand(program: Command): void {
  const noun = program.command("role").description("roles of people, programs and groups").addHelpText("after", exampleText);
  const withScope = (command: Command): Command =>
    command.option("--scope <resource id>", "where it counts: the whole subscription unless told");
  withHubOptions(noun.command("definitions"))
    .description("the roles that there are")
    .action(async (options: RoleOptions) => {
      await using session = await openSession(options);
      const roles = await listRoles(session.arm);
      printAnswer(session.style, roles, () =>
        formatTable(
          ["ROLE", "WHAT FOR"],
          roles.map(({ properties }) => [properties.roleName, properties.description ?? ""]),
        ),
      );
    });
  withScope(withHubOptions(noun.command("assign").argument("<role>")))
    .description("give a role; safe to repeat")
    .requiredOption("--to <name or id>", "person (user name), program or group")
    .action(async (role: string, options: RoleOptions) => await assign(role, options));
  withScope(withHubOptions(noun.command("list")))
    .description("who has which role at the scope and below it")
    .option("--to <name or id>", "only what this one has, groups included")
    .action(async (options: RoleOptions) => await list(options));
  withScope(withHubOptions(noun.command("remove").argument("<role>")))
    .description("take a role away, at once")
    .requiredOption("--from <name or id>", "person, program or group")
    .action(async (role: string, options: RoleOptions) => await remove(role, options));
}

async function assign(roleName: string, options: RoleOptions): Promise<void> {
  await using session = await openSession(options);
  const { arm } = session;
  const [role, who, scope] = [
    await findRole(arm, roleName),
    await findIdentity(arm, options.to ?? ""),
    options.scope ?? arm.subscriptionPath,
  ];
  const principalType = who.kind === "person" ? "User" : who.kind === "group" ? "Group" : "ServicePrincipal";
  const told = { role: role.properties.roleName, to: who.principalId, scope };
  const line = `${role.properties.roleName} for ${who.name} at ${scope}`;
  if ((await findAssignment(arm, { role, principalId: who.principalId, scope })) !== undefined) {
    printAnswer(session.style, { ...told, isNew: false }, () => `${line} stood already`);
    return;
  }
  const properties = { principalId: who.principalId, principalType, roleDefinitionId: role.id };
  await arm.change("PUT", `${scope}/${provider}/roleAssignments/${systemRandom.uuid()}`, { properties });
  printAnswer(session.style, { ...told, isNew: true }, () => line);
}

async function list(options: RoleOptions): Promise<void> {
  await using session = await openSession(options);
  const { arm } = session;
  const [roles, all] = [await listRoles(arm), await listIdentities(arm)];
  const who = options.to === undefined ? undefined : await findIdentity(arm, options.to);
  const filter = who === undefined ? "" : `?$filter=${encodeURIComponent(`assignedTo('${who.principalId}')`)}`;
  const path = `${options.scope ?? arm.subscriptionPath}/${provider}/roleAssignments${filter}`;
  const assignments = z.array(assignmentShape).parse(await arm.list(path));
  const shown = assignments.map(({ properties: { principalId, principalType, roleDefinitionId, scope } }) => ({
    role: roles.find((role) => role.name === roleDefinitionId.split("/").at(-1))?.properties.roleName ?? roleDefinitionId,
    name: all.find((each) => each.principalId === principalId)?.name ?? nameless(principalType),
    ...{ principalType, principalId, scope },
  }));
  printAnswer(session.style, shown, () =>
    formatTable(
      ["ROLE", "NAME", "TYPE", "ID", "SCOPE"],
      shown.map((each) => [each.role, each.name, each.principalType, each.principalId, each.scope]),
    ),
  );
}

/** Identities of vaults and the local account are in no list of principals. */
function nameless(principalType: string): string {
  return principalType === "ServicePrincipal" ? "(a vault's identity, or removed)" : "(the local account, or removed)";
}

async function remove(roleName: string, options: RoleOptions): Promise<void> {
  await using session = await openSession(options);
  const { arm } = session;
  const [role, who, scope] = [
    await findRole(arm, roleName),
    await findIdentity(arm, options.from ?? ""),
    options.scope ?? arm.subscriptionPath,
  ];
  const present = await findAssignment(arm, { role, principalId: who.principalId, scope });
  if (present === undefined)
    throw new Fault("NotFound", `could not take the role ${role.properties.roleName} from ${who.name}: it does not have it at this scope`, {
      evidence: { scope },
      action: `see what it has, by groups and at other scopes: watari role list --to ${who.principalId}`,
    });
  await arm.change("DELETE", present);
  printAnswer(session.style, { removed: present }, () => `${role.properties.roleName} of ${who.name} at ${scope} is removed`);
}

async function findAssignment(
  arm: ArmClient,
  { role, principalId, scope }: { readonly role: Role; readonly principalId: string; readonly scope: string },
): Promise<string | undefined> {
  const filter = encodeURIComponent(`principalId eq '${principalId}'`);
  const all = z.array(assignmentShape).parse(await arm.list(`${scope}/${provider}/roleAssignments?$filter=${filter}`));
  const isSame = ({ properties }: z.infer<typeof assignmentShape>): boolean =>
    properties.roleDefinitionId.split("/").at(-1)?.toLowerCase() === role.name && properties.scope.toLowerCase() === scope.toLowerCase();
  return all.find(isSame)?.id;
}

async function listRoles(arm: ArmClient): Promise<readonly Role[]> {
  return z.array(roleShape).parse(await arm.list(`${arm.subscriptionPath}/${provider}/roleDefinitions`));
}

async function findRole(arm: ArmClient, wanted: string): Promise<Role> {
  const roles = await listRoles(arm);
  const found = roles.find(({ name, properties }) => [name, properties.roleName.toLowerCase()].includes(wanted.toLowerCase()));
  if (found !== undefined) return found;
  throw new Fault("NotFound", `could not find the role ${wanted}`, {
    evidence: { roles: roles.map(({ properties }) => properties.roleName) },
    action: "name one of the roles in the evidence",
  });
}
