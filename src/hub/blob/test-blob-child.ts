// A blob front as a process of its own, for the test that kills it. Argument: root; the account key in base64 on stdin.

import { text } from "node:stream/consumers";
import { assert } from "../../base/assert.ts";
import { startTestBlobServer } from "./test-blob-server.ts";

const root = process.argv[2];
assert(root !== undefined, "the root is given");
const server = await startTestBlobServer(root, { key: Buffer.from(await text(process.stdin), "base64") });
process.stdout.write(`${JSON.stringify({ accountUrl: server.accountUrl, ca: server.ca })}\n`);
