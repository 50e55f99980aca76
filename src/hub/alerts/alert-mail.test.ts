// The text of alert mails: one alert in full, many as counts with the gravest told, both languages, and nothing from outside on a line of its own.

import assert from "node:assert/strict";
import { it } from "node:test";
import fc from "fast-check";
import type { HubEvent } from "../db/events.ts";
import { writeAlertMail, writeTestMail } from "./alert-mail.ts";

const vaultId = "/subscriptions/s/resourceGroups/g/providers/Microsoft.RecoveryServices/vaults/vault1";
const event = (more: Partial<HubEvent> = {}): HubEvent => ({
  ...{ eventId: "e1", at: "2026-01-02T15:04:05.678Z", vaultKey: "v", code: "AgentSilent", kind: "AgentHealth", severity: "Critical" },
  ...{
    description: "the agent of web-01 has not been heard of",
    component: "Agent",
    affected: { id: `${vaultId}/x/web-01`, name: "web-01" },
  },
  ...more,
});

it("an English mail tells what, when, why, what to do and the ids", () => {
  const { subject, text } = writeAlertMail({ leftOut: 0, vaultId }, [event()], "en-US");
  assert.equal(subject, "[Watari] [CRITICAL] the agent of web-01 has not been heard of");
  for (const line of [
    "  the agent of web-01 has not been heard of",
    "  2026-01-02 15:04:05 UTC",
    "  - the machine is off",
    "  look at the guest's journal: journalctl -u watari-agent",
    `  ${vaultId}/x/web-01`,
    `  ${vaultId}/replicationEvents/e1`,
  ])
    assert.ok(text.split("\n").includes(line), `${line}\n${text}`);
});

it("a Japanese mail has Japanese time and words, and an end is told as an end", () => {
  const raised = writeAlertMail({ leftOut: 0, vaultId }, [event()], "ja");
  assert.match(raised.text, /2026-01-03 00:04:05 JST \(2026-01-02 15:04:05 UTC\)/);
  const over = writeAlertMail({ leftOut: 0, vaultId }, [event({ code: "AgentSilentCleared", severity: "Info" })], "ja-JP");
  assert.equal(over.subject, "[Watari] [解消] 解消しました: マシンのエージェントからの応答がありません (web-01)");
  assert.doesNotMatch(over.text, /journalctl/);
  assert.match(writeTestMail("ja_JP").text, /テスト/);
  assert.match(writeTestMail("fr-FR").text, /This is a test/);
});

it("many alerts are counted, thirty are told, and what was left out is said", () => {
  const many = [...Array.from({ length: 999 }, () => event()), event({ code: "JobStuck", severity: "Warning" })];
  const { subject, text } = writeAlertMail({ leftOut: 12, vaultId }, many, "en");
  assert.equal(subject, "[Watari] 1000 alerts in vault1: 999 AgentSilent, 1 JobStuck");
  assert.equal(text.split("\n").filter((line) => line.startsWith("[CRITICAL]")).length, 30);
  assert.match(text, /and 970 more/);
  assert.match(text, /12 more came while too many waited/);
  assert.ok(text.length < 40_000);
});

it("no text from outside breaks a line or holds a control character, and a subject is one line with an end", () => {
  const wild = fc.string({ unit: "binary", maxLength: 400 });
  fc.assert(
    fc.property(wild, wild, wild, (name, description, id) => {
      const job = { jobId: "j", title: description, state: "Failed" };
      const given = event({ code: "UnplannedFailoverFailed", kind: "JobStatus", description, job, affected: { id, name } });
      const { subject, text } = writeAlertMail({ leftOut: 0, vaultId }, [given], "ja");
      assert.ok(subject.length <= 160 && !/\p{Cc}/u.test(subject));
      assert.ok(!/[^\n\P{Cc}]/u.test(text));
      // What came from outside stands behind a mark or an indent; every line that begins a text is ours.
      for (const line of text.split("\n")) assert.match(line, /^($| {2}|\[|--$|コンテナー|変更する|\p{L}+:$)/u);
    }),
  );
});
