// A reporter for Node's test runner that writes the counts of the whole run as JSON, for `watari dev test`.

import type { TestEvent } from "node:test/reporters";

/** The runner tells a summary of each file and, without a file, of the whole run. */
// oxlint-disable-next-line import/no-default-export -- the test runner takes a reporter by its default export
export default async function* reportTotals(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of source) {
    if (event.type === "test:summary" && event.data.file === undefined) {
      const { tests, suites, passed, cancelled, skipped, todo } = event.data.counts;
      yield JSON.stringify({ tests, suites, passed, failed: tests - passed - cancelled - skipped - todo, cancelled, skipped, todo });
    }
  }
}
