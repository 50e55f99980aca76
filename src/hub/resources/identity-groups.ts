// Watari.Identity/groups: groups that hold roles, with members of this hub or a value of the identity provider's groups claim.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseInput } from "../api/arm-errors.ts";
import { defineAction, defineResource, type ArmCall, type ResourceType } from "../api/resource-type.ts";
import type { Group, Groups } from "../db/groups.ts";
import type { Principals } from "../db/principals.ts";
import type { JsonObject } from "../db/resources.ts";
import { principalSource } from "./principal-source.ts";

const typeName = "Watari.Identity/groups";
const groupNameShape = z.uuid("the name of a group is a UUID");
const memberShape = z.strictObject({ principalId: z.uuid().transform((id) => id.toLowerCase()) });

interface Dependencies {
  readonly groups: Groups;
  readonly principals: Principals;
}

export function groupType({ groups, principals }: Dependencies): ResourceType {
  const find = async (call: ArmCall): Promise<Group | undefined> =>
    z.uuid().safeParse(call.id.name).success ? await groups.find(call.id.name.toLowerCase()) : undefined;
  const show = async (scope: string, group: Group): Promise<JsonObject> => toBody(scope, group, await groups.members(group.groupId));
  return defineResource({
    type: typeName,
    within: "subscription",
    properties: z.strictObject({ displayName: z.string().min(1).max(120), claimValue: z.string().min(1).max(256).optional() }),
    onPut: async (call, desired) => {
      const groupId = parseInput(groupNameShape, call.id.name.toLowerCase(), "the name of the group");
      if ((await principals.find(groupId)) !== undefined)
        throw new Fault("StateConflict", "could not make the group: a principal has this id", { evidence: { groupId }, retry: "never" });
      const isNew = (await find(call)) === undefined;
      const { displayName, claimValue } = desired.properties;
      await groups.save({ groupId, name: displayName, claimValue });
      return { kind: "answered", body: await show(call.id.parentText, { groupId, name: displayName, claimValue }), isNew };
    },
    onDelete: async (call) => {
      await groups.remove(call.id.name.toLowerCase());
      return { kind: "done" };
    },
    source: principalSource({
      find,
      list: async (after, countMax) => await groups.list(after, countMax),
      idOf: ({ groupId }) => groupId,
      show,
    }),
    actions: {
      addMember: defineAction({
        body: memberShape,
        run: async (call, { principalId }) => {
          if ((await principals.find(principalId)) === undefined)
            throw new Fault("NotFound", "could not add the member: no principal has this id", { evidence: { principalId } });
          await groups.addMember(call.id.name.toLowerCase(), principalId);
          return { kind: "done" };
        },
      }),
      removeMember: defineAction({
        body: memberShape,
        run: async (call, { principalId }) => {
          if (await groups.removeMember(call.id.name.toLowerCase(), principalId)) return { kind: "done" };
          throw new Fault("NotFound", "could not remove the member: the group does not have it", { evidence: { principalId } });
        },
      }),
    },
  });
}

function toBody(scope: string, { groupId, name, claimValue }: Group, members: readonly string[]): JsonObject {
  const properties = { displayName: name, principalId: groupId, ...(claimValue === undefined ? {} : { claimValue }), members };
  return { id: `${scope}/providers/${typeName}/${groupId}`, name: groupId, type: typeName, properties };
}
