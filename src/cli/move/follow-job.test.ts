// What is said of a running job.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { jobText, type FollowedJob } from "./follow-job.ts";

function job(text: string, states: readonly string[]): FollowedJob {
  const names = ["compare the disks", "copy the rest"];
  return {
    scenarioName: "UnplannedFailover",
    friendlyName: "migrate",
    state: "InProgress",
    tasks: states.map((state, index) => ({ name: `${index}`, friendlyName: names[index] ?? "", state })),
    errors: [],
    watari: { percent: 41.7, text, evidence: {} },
  };
}

describe("jobText", () => {
  it("names the running step and adds its own words, with sizes for people", () => {
    assert.equal(jobText(job("", ["NotStarted", "NotStarted"])), " 41 %  migrate");
    assert.equal(jobText(job("3145728 bytes to copy", ["Succeeded", "InProgress"])), " 41 %  copy the rest: 3.0 MiB to copy");
  });

  it("does not take the title of another step for words of this one", () => {
    assert.equal(jobText(job("compare the disks", ["Succeeded", "InProgress"])), " 41 %  copy the rest");
  });
});
