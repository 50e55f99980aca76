// One call to the hub from inside a zone, with the operator's profile: METHOD PATH [BODY]; PATH may begin with GROUP.

import { z } from "zod";
import { openSession } from "../../../src/cli/session.ts";

const methodShape = z.enum(["GET", "PUT", "DELETE"]);

const [given, path = "", body] = process.argv.slice(2);
const method = methodShape.parse(given);
await using session = await openSession({});
const full = path.replace(/^GROUP/, session.arm.groupPath);
const content: unknown = body === undefined ? undefined : JSON.parse(body);
const answer = method === "GET" ? await session.arm.get(full) : await session.arm.change(method, full, content);
process.stdout.write(JSON.stringify(answer ?? {}));
