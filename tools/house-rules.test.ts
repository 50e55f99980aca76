// Each house rule finds a planted fault, and says nothing where all is well.

import assert from "node:assert/strict";
import { test } from "node:test";
import { checkDocs, type DocsInput } from "./check-docs.ts";
import { checkLayers } from "./check-layers.ts";
import { checkTidy } from "./check-tidy.ts";

const layerMessages = (path: string, text: string): readonly string[] => checkLayers([{ path, text }]).map(({ message }) => message);
const tidyMessages = (path: string, text: string): readonly string[] => checkTidy([{ path, text }]).map(({ message }) => message);

test("checkLayers passes what the table allows", () => {
  const text = 'import { z } from "zod";\nimport type { Clock } from "../base/clock.ts";\nexport { x } from "./x.ts";\n';
  assert.deepEqual(layerMessages("src/disk/disk.ts", text), []);
  assert.deepEqual(layerMessages("src/main.ts", 'await import("./hub/main.ts");\n'), []);
  assert.deepEqual(layerMessages("src/cli/setup/lists.ts", 'import { labPackages } from "../../../lab/packages.ts";\n'), []);
});

test("checkLayers finds every kind of forbidden import and names the row", () => {
  const planted = [
    'import { hub } from "../hub/hub.ts";',
    'import type { Hub } from "../hub/hub.ts";',
    'import {\n  one,\n  two,\n} from "../hub/hub.ts";',
    'import "../hub/hub.ts";',
    'export { hub } from "../hub/hub.ts";',
    'export * from "../hub/hub.ts";',
    'const hub = await import("../hub/hub.ts");',
    'type Hub = import("../hub/hub.ts").Hub;',
  ];
  for (const text of planted) {
    const expected = 'src/agent may not import src/hub (src/hub/hub.ts); if it should, change the row "src/agent" in tools/check-layers.ts';
    assert.deepEqual(layerMessages("src/agent/agent.ts", `${text}\n`), [expected], text);
  }
});

test("checkLayers gives the line of the import", () => {
  const text = '// A file.\n\nimport { a } from "./a.ts";\nimport { hub } from "../hub/hub.ts";\n';
  assert.deepEqual(
    checkLayers([{ path: "src/agent/agent.ts", text }]).map(({ line }) => line),
    [4],
  );
});

test("checkLayers finds computed imports, unknown folders and ways out of the table", () => {
  assert.match(layerMessages("src/agent/a.ts", "await import(name);\n")[0] ?? "", /plain string/);
  assert.match(layerMessages("src/novelty/a.ts", "")[0] ?? "", /no row .* holds this file/);
  assert.match(layerMessages("src/agent/a.ts", 'import x from "../../scripts/x.ts";\n')[0] ?? "", /no row .* holds/);
});

test("checkLayers reads comments and strings as what they are", () => {
  assert.deepEqual(layerMessages("src/agent/a.ts", '// import { hub } from "../hub/hub.ts";\n/** See import("../hub/hub.ts"). */\n'), []);
});

test("checkTidy passes a tidy file", () => {
  assert.deepEqual(tidyMessages("src/disk/disk.ts", "// A disk.\n\nexport class Disk {} // TODO(#5): read ahead.\n"), []);
});

test("checkTidy finds each planted fault", () => {
  const planted: readonly (readonly [path: string, text: string, message: RegExp])[] = [
    ["src/disk/a.ts", "import x;\n", /first line/],
    ["src/disk/a.ts", "// no stop\n", /first line/],
    ["src/disk/a.ts", `// A.\n${"//\n".repeat(500)}`, /longer than 500/],
    ["src/disk/a.ts", "// A.\n// TODO later\n", /names its issue/],
    ["src/disk/a.ts", "// A.\n// FIXME\n", /TODO\(#n\)/],
    ["src/disk/a.ts", "// A.\nexport class DiskManager {}\n", /name the thing/],
    ["src/disk/index.ts", "// A.\n", /no index files/],
    ["src/disk/disk-utils.ts", "// A.\n", /main thing/],
    ["src/disk/a.test.ts", '// A.\ntest.only("x");\n', /not a test/],
    ["src/hub/api.ts", "// A.\nprocess.env.HOME;\n", /environment/],
    ["src/disk/a.ts", "// A seamless disk.\n", /praise/],
  ];
  for (const [path, text, message] of planted) {
    const messages = tidyMessages(path, text);
    assert.equal(messages.length, 1, text);
    assert.match(messages[0] ?? "", message);
  }
  assert.deepEqual(tidyMessages("src/hub/main.ts", "// A.\nprocess.env.HOME;\n"), []);
});

test("checkDocs passes good pages and finds each planted fault", () => {
  const good: DocsInput = {
    pages: [
      { path: "README.md", text: "See [the design](docs/design/) and [zod](docs/decisions/zod.md#why), fault `NotFound`." },
      { path: "docs/decisions/zod.md", text: "`zod` checks input. [Back](../../README.md)" },
    ],
    paths: ["README.md", "docs/decisions/zod.md", "docs/design/vault.md"],
    sources: [{ path: "src/a.ts", text: 'new Fault("NotFound")' }],
    dependencies: ["zod"],
    faultCodes: ["NotFound"],
  };
  assert.deepEqual(checkDocs(good), []);
  const planted: readonly (readonly [change: Partial<DocsInput>, message: RegExp])[] = [
    [{ pages: [...good.pages, { path: "docs/a.md", text: "[x](gone.md)" }] }, /gone\.md leads nowhere/],
    [{ pages: [...good.pages, { path: "a.md", text: "fault `NotThere`" }] }, /no fault is called NotThere/],
    [{ faultCodes: ["NotFound", "Unused"] }, /nothing uses the fault Unused/],
    [{ pages: [...good.pages, { path: "docs/decisions/b.md", text: "b".repeat(3201) }] }, /half a page/],
    [{ dependencies: ["zod", "pg"] }, /names `pg`/],
  ];
  for (const [change, message] of planted) {
    const findings = checkDocs({ ...good, ...change });
    assert.equal(findings.length, 1, String(message));
    assert.match(findings[0]?.message ?? "", message);
  }
});
