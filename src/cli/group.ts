// `watari group`: groups that hold roles, of the identity provider or of this hub.

import type { Command } from "commander";
import { z } from "zod";
import { systemRandom } from "../base/random.ts";
import { findIdentity, identityPath, listIdentities } from "./identity.ts";
import { formatTable, printAnswer } from "./output.ts";
import { confirmRemoval } from "./principal.ts";
import { openSession, withHubOptions } from "./session.ts";

interface HubOptions {
  readonly json?: boolean;
  readonly profile?: string;
}

const groupShape = z.looseObject({ claimValue: z.string().optional(), members: z.array(z.string()) });

const exampleText = `
A group of your identity provider: name what it writes into the groups claim of a member, then give the group a role.
  watari group create movers --claim 7f1c…           the object id, or the name, as the provider sends it
  watari role assign "Site Recovery Operator" --to movers
A group of this hub alone:
  watari group create night-shift
  watari group add night-shift anna@example.com
Who is taken out of a provider's group loses its roles at the next refresh (fifteen minutes at most, where the provider can be asked again).`;

export function registerGroupCommand(program: Command): void {
  const noun = program.command("group").description("groups that hold roles").addHelpText("after", exampleText);
  withHubOptions(noun.command("list"))
    .description("groups, what the provider calls them, and how many members were added here")
    .action(async (options: HubOptions) => {
      await using session = await openSession(options);
      const groups = await listIdentities(session.arm, ["group"]);
      printAnswer(
        session.style,
        groups.map(({ properties }) => properties),
        () =>
          formatTable(
            ["NAME", "CLAIM", "MEMBERS", "ID"],
            groups.map(({ name, principalId, properties }) => {
              const { claimValue, members } = groupShape.parse(properties);
              return [name, claimValue ?? "", String(members.length), principalId];
            }),
          ),
      );
    });
  withHubOptions(noun.command("create").argument("<name>"))
    .description("make a group; it has no role yet")
    .option("--claim <value>", "value of the provider's groups claim that means this group")
    .action(async (name: string, options: HubOptions & { readonly claim?: string }) => {
      await using session = await openSession(options);
      const groupId = systemRandom.uuid();
      const claim = options.claim === undefined ? {} : { claimValue: options.claim };
      await session.arm.change("PUT", identityPath(session.arm, "group", groupId), { properties: { displayName: name, ...claim } });
      printAnswer(
        session.style,
        { principalId: groupId, name, ...claim },
        () => `group ${name} is made; give it a role: watari role assign Reader --to ${name}`,
      );
    });
  for (const [verb, action, description] of [
    ["add", "addMember", "add a person or a program to a group"],
    ["take-out", "removeMember", "take a person or a program out of a group, at once"],
  ] as const)
    withHubOptions(noun.command(verb).argument("<group>").argument("<member>"))
      .description(description)
      .action(async (group: string, member: string, options: HubOptions) => {
        await using session = await openSession(options);
        const [of, who] = [
          await findIdentity(session.arm, group, ["group"]),
          await findIdentity(session.arm, member, ["person", "program"]),
        ];
        await session.arm.change("POST", `${of.path}/${action}`, { principalId: who.principalId });
        printAnswer(session.style, { group: of.principalId, member: who.principalId }, () => `${verb}: ${who.name}, group ${of.name}`);
      });
  withHubOptions(noun.command("remove").argument("<group>"))
    .description("remove a group; its roles count for nobody any more")
    .option("--yes", "needed where no terminal asks")
    .action(async (group: string, options: HubOptions & { readonly yes?: boolean }) => {
      await using session = await openSession(options);
      const found = await findIdentity(session.arm, group, ["group"]);
      await confirmRemoval(found, options.yes);
      await session.arm.change("DELETE", found.path);
      printAnswer(session.style, { removed: found.principalId }, () => `group ${found.name} is removed`);
    });
}
