// Bodies of calls: JSON in UTF-8 that can be stored as it is, however it was written; anything else is refused before anyone looks at it.

import { isUtf8 } from "node:buffer";
import type { FastifyInstance } from "fastify";
import { Fault } from "../../contract/errors.ts";
import { ArmFault } from "./arm-errors.ts";

/** Far more than any client's body has; what is stored is read again by parts that go down into it. */
const levelsMax = 100;
const pathCharactersMax = 200;

/** Clients of every language send JSON under several names, and an empty body with a content type too. */
export function takeJson(face: FastifyInstance): void {
  const parse = face.getDefaultJsonParser("error", "error");
  face.removeAllContentTypeParsers();
  face.addContentTypeParser(
    ["application/json", "application/merge-patch+json", "text/json"],
    { parseAs: "buffer" },
    (request, bytes: Buffer, done): void => {
      // Decoded as if nothing were, a broken character would be stored as another one.
      if (!isUtf8(bytes)) return done(new Fault("InputInvalid", "could not read the request's body: it is not in UTF-8"));
      const text = bytes.toString("utf8");
      if (text.trim() === "") return done(null, undefined);
      void parse(request, text, (error, body: unknown) => {
        const problem = error === null ? problemOf(body) : undefined;
        if (problem === undefined) done(error, body);
        else done(refusal(problem));
      });
    },
  );
}

interface Problem {
  readonly path: readonly string[];
  readonly reason: string;
}

/** The first place that the database could not keep: NUL and halves of a character, as names or values, and what is nested without end. */
function problemOf(value: unknown, level = 0): Problem | undefined {
  if (typeof value === "string") return isKeepable(value) ? undefined : { path: [], reason: "it has a NUL or half of a character" };
  if (typeof value !== "object" || value === null) return undefined;
  if (level >= levelsMax) return { path: [], reason: `it is nested deeper than ${levelsMax} levels` };
  // Paths are made for what is refused only: anybody may send a large body.
  for (const name in value) {
    if (!isKeepable(name)) return { path: [], reason: "a member's name has a NUL or half of a character" };
    const problem = problemOf(Reflect.get(value, name), level + 1);
    if (problem !== undefined) return { ...problem, path: [name, ...problem.path] };
  }
  return undefined;
}

function isKeepable(text: string): boolean {
  return text.isWellFormed() && !text.includes("\u0000");
}

function refusal({ path, reason }: Problem): ArmFault {
  const target = path.join(".").slice(0, pathCharactersMax);
  return new ArmFault("InputInvalid", "InvalidRequestContent", `could not read the request's body: ${reason}`, {
    evidence: { path: target },
    ...(target === "" ? {} : { target }),
  });
}
