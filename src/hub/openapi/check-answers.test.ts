// Every type and action of the hub has a description of its answer, and an answer that differs from it is told by its path.

import assert from "node:assert/strict";
import { test } from "node:test";
import type { AnsweredCall } from "../api/arm-call.ts";
import type { ResourceType } from "../api/resource-type.ts";
import { describedAnswers } from "./answers/answers.ts";
import { createAnswerCheck } from "./check-answers.ts";
import { everyType } from "./every-type.ts";

const table = await everyType();

function typeOf(name: string): ResourceType {
  const type = table.find(name);
  assert.ok(type !== undefined, name);
  return type;
}

/** What the check says of these calls. */
function problemsOf(...calls: readonly AnsweredCall[]): readonly string[] {
  const problems: string[] = [];
  const check = createAnswerCheck((problem) => void problems.push(problem));
  for (const call of calls) check.onAnswer(call);
  return problems;
}

test("every type and every action that is not refused has its answer described, and nothing else is", () => {
  const wanted = table.types.filter(({ absent }) => absent === undefined);
  assert.deepEqual([...describedAnswers.keys()].toSorted(), wanted.map(({ type }) => type).toSorted());
  for (const { type, actions = {}, collectionActions = {}, onCall } of wanted) {
    const described = describedAnswers.get(type);
    const answered = Object.entries(actions).flatMap(([name, { isRefused }]) => (isRefused === true ? [] : [name]));
    assert.deepEqual(Object.keys(described?.actions ?? {}).toSorted(), answered.toSorted(), type);
    assert.deepEqual(Object.keys(described?.collectionActions ?? {}).toSorted(), Object.keys(collectionActions).toSorted(), type);
    assert.equal(described?.call !== undefined, onCall !== undefined, type);
  }
});

const head = { id: "/subscriptions/s/resourceGroups/g/providers/x/y", name: "y", type: "x" };
const zone = "Microsoft.Network/privateDnsZones/TXT";
const txt = {
  ...head,
  etag: '"1"',
  properties: { txtRecords: [{ value: ["x"] }], fqdn: "x.", isAutoRegistered: false, provisioningState: "Succeeded" },
};
const identity = "Watari.Identity/groups";
const group = { ...head, properties: { displayName: "d", principalId: "p", members: ["m"] } };

function got(type: string, body: unknown, sent?: unknown): AnsweredCall {
  return { type: typeOf(type), what: "resource", method: "GET", sent, answer: { status: 200, body } };
}

test("an answer as described passes; a member more, a member less and another kind of value are told by their paths", () => {
  assert.deepEqual(problemsOf(got(identity, group), got(zone, txt)), []);
  const told = problemsOf(
    got(identity, { ...group, properties: { ...group.properties, secret: "s" } }),
    got(identity, { ...group, properties: { displayName: "d", principalId: "p" } }),
    got(identity, { ...group, properties: { ...group.properties, members: ["m", 7] } }),
    got(identity, { ...group, more: true }),
  );
  assert.equal(told.length, 4, told.join("\n"));
  for (const [index, path] of ["properties.secret", "properties.members", "properties.members.1", "more"].entries())
    assert.match(told[index] ?? "", new RegExp(`^GET ${identity} \\(resource\\) 200: ${path.replaceAll(".", "\\.")}: `));
});

test("a member that nobody described may come back only where the type keeps it, and only when a client has sent it", () => {
  const more = { ...txt, properties: { ...txt.properties, theirs: { deep: 1 } } };
  assert.match(problemsOf(got(zone, more))[0] ?? "", /properties\.theirs: is answered and not described/);
  assert.deepEqual(problemsOf(got(zone, txt, { properties: { theirs: 1 } }), got(zone, more)), []);
  const closed = { ...group, properties: { ...group.properties, theirs: 1 } };
  assert.match(problemsOf(got(identity, group, { theirs: 1 }), got(identity, closed))[0] ?? "", /properties\.theirs/);
});

test("pages, actions, calls, operations and refusals are held against theirs", () => {
  const call = { method: "POST", sent: undefined, action: "signOut" } as const;
  const people = typeOf("Watari.Identity/people");
  const answer = (body: unknown) => ({ status: 200, body });
  assert.deepEqual(problemsOf({ ...call, type: people, what: "action", answer: answer({ endedCount: 1 }) }), []);
  assert.equal(problemsOf({ ...call, type: people, what: "action", answer: answer({ endedCount: "1" }) }).length, 1);
  assert.equal(problemsOf({ ...call, type: people, what: "action", action: "disable", answer: answer({}) }).length, 1);
  assert.equal(problemsOf({ ...call, type: typeOf(identity), what: "list", answer: answer({ value: [group, head] }) }).length, 1);
  assert.equal(problemsOf({ ...call, type: typeOf(identity), what: "operationStatus", answer: answer({ status: "Done" }) }).length, 1);
  assert.equal(problemsOf({ ...call, type: typeOf(identity), what: "operationResult", answer: answer(head) }).length, 1);
  const problems: string[] = [];
  const check = createAnswerCheck((problem) => void problems.push(problem));
  check.onSent({
    route: "/subscriptions/*",
    status: 404,
    body: { error: { code: "NotFound", message: "no", details: [], additionalInfo: [] } },
  });
  assert.deepEqual(problems, []);
  check.onSent({ route: "/subscriptions/*", status: 404, body: { error: "NotFound" } });
  check.onSent({ route: "/tenants", status: 200, body: { value: [{ id: "x" }] } });
  assert.equal(problems.length, 2);
});
