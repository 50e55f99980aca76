// Every operation of an Azure client, read from the client itself: a new version of the SDK cannot bring one that nobody decided about.

/** A call of the client: long-running ones are waited for. */
export interface SdkOperation {
  /** "replicationFabrics.create": the group as the client names it, the operation without begin and AndWait. */
  readonly name: string;
  /** Names of the function's parameters, without `options`. */
  readonly parameters: readonly string[];
  /** Pages of lists are followed to the end. */
  call(args: readonly unknown[]): Promise<unknown>;
}

type Callable = (...args: readonly unknown[]) => unknown;

/** Members of a client that are machinery of the SDK, not operation groups. */
const machinery: ReadonlySet<string> = new Set(["pipeline", "_httpClient", "_client"]);
const ownMachinery: ReadonlySet<string> = new Set(["sendRequest", "sendOperationRequest"]);
/** Faces of one operation that generated clients have beside its own. */
const facePattern = /^_|PagingPage$|PagingAll$|Policy$/;

export function operationsOf(client: object): readonly SdkOperation[] {
  const groups = Object.entries(client).flatMap(([name, group]: [string, unknown]) =>
    typeof group === "object" && group !== null && !machinery.has(name) ? groupOperations(name, group) : [],
  );
  const own = groupOperations("client", client).filter(({ name }) => !ownMachinery.has(name.slice("client.".length)));
  return [...groups, ...own].toSorted((left, right) => (left.name < right.name ? -1 : 1));
}

function groupOperations(groupName: string, group: object): readonly SdkOperation[] {
  const functions = functionsOf(group);
  const names = new Set([...functions.keys()].filter((name) => !facePattern.test(name)).map(plainName));
  return [...names].map((name) => {
    const waiting = functions.get(`begin${name.slice(0, 1).toUpperCase()}${name.slice(1)}AndWait`);
    const callable = waiting ?? functions.get(name);
    if (callable === undefined) throw new Error(`assertion failed: ${groupName}.${name} has a form that is not known`);
    return {
      name: `${groupName}.${name}`,
      parameters: parametersOf(callable),
      call: async (args) => await finish(callable.apply(group, [...args])),
    };
  });
}

/** Own members and those of its class. */
function functionsOf(group: object): ReadonlyMap<string, Callable> {
  const found = new Map<string, Callable>();
  for (let at: object | null = group; at !== null && at !== Object.prototype; at = Reflect.getPrototypeOf(at))
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(at)))
      if (typeof value === "function" && name !== "constructor" && !found.has(name)) found.set(name, value as Callable); // It is one.
  return found;
}

/** beginCreateAndWait, beginCreate and create are one operation. */
function plainName(name: string): string {
  const begun = /^begin([A-Z])(.*?)(AndWait)?$/.exec(name);
  return begun === null ? name : `${begun[1]?.toLowerCase() ?? ""}${begun[2] ?? ""}`;
}

function parametersOf(callable: Callable): readonly string[] {
  const [, list = ""] = /^[^(]*\(([^)]*)\)/.exec(callable.toString()) ?? [];
  const names = list.split(",").map((text) => text.split("=")[0]?.trim() ?? "");
  return names.filter((name) => name !== "" && name !== "options");
}

async function finish(answered: unknown): Promise<unknown> {
  const answer: unknown = await answered;
  if (typeof answer !== "object" || answer === null || !(Symbol.asyncIterator in answer)) return answer;
  const items: unknown[] = [];
  for await (const item of answer as AsyncIterable<unknown>) items.push(item); // It has the iterator.
  return items;
}
