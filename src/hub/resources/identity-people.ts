// Watari.Identity/people: who signed in through the identity provider; disable, sign out, remove. Nobody is made here.

import { z } from "zod";
import { defineAction, defineResource, type ArmCall, type ResourceType } from "../api/resource-type.ts";
import type { Groups } from "../db/groups.ts";
import type { People, Person } from "../db/people.ts";
import type { Principals } from "../db/principals.ts";
import type { JsonObject } from "../db/resources.ts";
import type { Sessions } from "../db/sessions.ts";
import { principalSource } from "./principal-source.ts";

const typeName = "Watari.Identity/people";

interface Dependencies {
  readonly people: People;
  readonly principals: Principals;
  readonly groups: Groups;
  readonly sessions: Sessions;
}

export function personType({ people, principals, groups, sessions }: Dependencies): ResourceType {
  const find = async (call: ArmCall): Promise<Person | undefined> =>
    z.uuid().safeParse(call.id.name).success ? await people.find(call.id.name.toLowerCase()) : undefined;
  const show = async (scope: string, person: Person): Promise<JsonObject> => {
    const { principalId } = person;
    const [groupIds, open] = await Promise.all([groups.groupsOf(principalId), sessions.of(principalId)]);
    return toBody(scope, person, { groupIds, sessionCount: open.length });
  };
  const nothing = z.strictObject({});
  return defineResource({
    type: typeName,
    within: "subscription",
    properties: z.looseObject({}),
    onPut: "refuse",
    onDelete: async (call) => {
      await principals.remove(call.id.name.toLowerCase());
      return { kind: "done" };
    },
    source: principalSource({
      find,
      list: async (after, countMax) => await people.list(after, countMax),
      idOf: ({ principalId }) => principalId,
      show,
    }),
    actions: {
      disable: defineAction({
        body: nothing,
        run: async (call) => {
          await people.disable(call.id.name.toLowerCase());
          return { kind: "done" };
        },
      }),
      enable: defineAction({
        body: nothing,
        run: async (call) => {
          await people.enable(call.id.name.toLowerCase());
          return { kind: "done" };
        },
      }),
      signOut: defineAction({
        body: nothing,
        run: async (call) => {
          const endedCount = await sessions.endAllOf(call.id.name.toLowerCase(), "an administrator signed the person out");
          return { kind: "done", body: { endedCount } };
        },
      }),
    },
  });
}

function toBody(scope: string, person: Person, known: { readonly groupIds: readonly string[]; readonly sessionCount: number }): JsonObject {
  const { principalId, name, userName, issuer, subject, lastSignInAt, disabledAt } = person;
  const state = disabledAt === undefined ? { isEnabled: true } : { isEnabled: false, disabledAt };
  const properties = { displayName: name, principalId, userName, issuer, subject, lastSignInAt, ...state, ...known };
  return { id: `${scope}/providers/${typeName}/${principalId}`, name: principalId, type: typeName, properties };
}
