// The words of a $filter: names and bare literals, quoted texts, parentheses.

import { ArmFault } from "./arm-errors.ts";

export interface Token {
  readonly kind: "word" | "text" | "open" | "close";
  /** Of a quoted text: what stands between the quotes. */
  readonly text: string;
}

const tokensMax = 400;
// A quote inside a text is doubled. datetime'…' and guid'…' are OData's older forms of a text.
const pattern = /\s*(?:(\()|(\))|(?:datetime|guid)?'((?:[^']|'')*)'|([\w/.:+-]+))\s*/iy;

export function readTokens(text: string): readonly Token[] {
  const tokens: Token[] = [];
  pattern.lastIndex = 0;
  while (pattern.lastIndex < text.length) {
    const at = pattern.lastIndex;
    const found = pattern.exec(text);
    if (found === null || tokens.length >= tokensMax)
      throw new ArmFault(
        "InputInvalid",
        "InvalidFilter",
        "could not read $filter: it holds something that is no name, value or parenthesis",
        {
          evidence: { filter: text.slice(0, 300), at },
          target: "$filter",
        },
      );
    const [, open, close, quoted, word] = found;
    if (open !== undefined) tokens.push({ kind: "open", text: open });
    else if (close !== undefined) tokens.push({ kind: "close", text: close });
    else if (quoted !== undefined) tokens.push({ kind: "text", text: quoted.replaceAll("''", "'") });
    else tokens.push({ kind: "word", text: word ?? "" });
  }
  return tokens;
}
