// How a type of principals is read: one by its id, all of them in pages by id.

import type { ArmCall, ResourceSource } from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";

export function principalSource<T>(parts: {
  readonly find: (call: ArmCall) => Promise<T | undefined>;
  readonly list: (after: string | undefined, countMax: number) => Promise<readonly T[]>;
  readonly idOf: (found: T) => string;
  /** As a caller sees it; `parent` is the resource id that it stands under. */
  readonly show: (parent: string, found: T) => Promise<JsonObject>;
}): ResourceSource {
  const { find, list, idOf, show } = parts;
  return {
    get: async (call) => {
      const found = await find(call);
      return found === undefined ? undefined : await show(call.id.parentText, found);
    },
    list: async (call, { after, countMax }) => {
      const page = await list(after, countMax);
      const last = page.at(-1);
      const next = page.length === countMax && last !== undefined ? idOf(last) : undefined;
      return { items: await Promise.all(page.map(async (each) => await show(call.id.text, each))), next };
    },
  };
}
