// A reporter for Node's test runner that writes each step of a journey as one JSON object a line, for `conformance --lab --json`.

import type { TestEvent } from "node:test/reporters";

// oxlint-disable-next-line import/no-default-export -- the test runner takes a reporter by its default export
export default async function* reportSteps(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const { type, data } of source) {
    if (type === "test:diagnostic" && data.nesting > 0) yield `${JSON.stringify({ kind: "note", text: data.message })}\n`;
    if ((type !== "test:pass" && type !== "test:fail") || data.nesting === 0) continue;
    const seconds = Math.round(data.details.duration_ms) / 1000;
    yield `${JSON.stringify({ kind: "step", name: data.name, isGood: type === "test:pass", seconds })}\n`;
  }
}
