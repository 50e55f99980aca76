// Who there is at a hub, as the command line needs it: people, programs and groups, found by id or by name.

import { z } from "zod";
import { Fault } from "../contract/errors.ts";
import type { ArmClient } from "./arm-client.ts";

export interface Identity {
  readonly kind: "person" | "program" | "group";
  readonly name: string;
  readonly principalId: string;
  readonly userName?: string;
  readonly path: string;
  /** As the API shows it. */
  readonly properties: Readonly<Record<string, unknown>>;
}

const types = { person: "people", program: "servicePrincipals", group: "groups" } as const;
const itemShape = z.object({
  properties: z.looseObject({ displayName: z.string(), principalId: z.string(), userName: z.string().optional() }),
});
const uuidShape = z.uuid();

export function identityPath(arm: ArmClient, kind: Identity["kind"], principalId?: string): string {
  return `${arm.subscriptionPath}/providers/Watari.Identity/${types[kind]}${principalId === undefined ? "" : `/${principalId}`}`;
}

export async function listIdentities(
  arm: ArmClient,
  kinds: readonly Identity["kind"][] = ["person", "program", "group"],
): Promise<readonly Identity[]> {
  const lists = kinds.map(async (kind) =>
    z
      .array(itemShape)
      .parse(await arm.list(identityPath(arm, kind)))
      .map(({ properties }): Identity => {
        const { displayName: name, principalId, userName } = properties;
        const path = identityPath(arm, kind, principalId);
        return { kind, name, principalId, ...(userName === undefined ? {} : { userName }), path, properties };
      }),
  );
  return (await Promise.all(lists)).flat();
}

/** By id, name or user name; a name that two have is refused with both. */
export async function findIdentity(arm: ArmClient, who: string, kinds?: readonly Identity["kind"][]): Promise<Identity> {
  const all = await listIdentities(arm, kinds);
  const wanted = who.toLowerCase();
  const found = all.filter(({ principalId, name, userName }) =>
    [principalId, name.toLowerCase(), userName?.toLowerCase()].includes(wanted),
  );
  const [only] = found;
  if (only !== undefined && found.length === 1) return only;
  const isId = uuidShape.safeParse(who).success;
  if (only === undefined)
    throw new Fault("NotFound", `could not find ${who}`, {
      causes: [isId ? "the id is misspelt" : "the name is misspelt", "a person is known only after the first sign-in"],
      action: "list who there is: watari principal list",
    });
  throw new Fault("InputInvalid", `could not tell whom ${who} means: ${found.length} have this name`, {
    evidence: { candidates: found.map(({ kind, principalId }) => `${kind} ${principalId}`) },
    action: "call again with the id",
  });
}
