// What a client asks of a list of jobs, from $filter or from the body of an export: the fields of JobQueryParameter.

import { Fault } from "../../contract/errors.ts";
import type { JobState } from "../jobs/job.ts";
import type { JobWish } from "../jobs/job-list.ts";
import { segmentsOf } from "./affected-type.ts";
import { armStates } from "./present-job.ts";
import { parseQueryTime, queryGrammar } from "./query-filter.ts";

/** The fields of the SDK's JobQueryParameter that choose jobs. */
export const jobGrammar = queryGrammar({
  texts: { fabricId: "targetObjectId", affectedObjectTypes: "targetInstanceType", jobStatus: "state", jobName: "scenarioName" },
  time: "startTime",
});
type Field = "startTime" | "endTime" | "fabricId" | "affectedObjectTypes" | "jobStatus" | "jobName";
/** Empty and null as absent: clients send their whole form. */
export type JobQuery = Readonly<Partial<Record<Field, string | null | undefined>>>;

export function jobWishOf(query: JobQuery): JobWish {
  const given = (field: Field): string | undefined => {
    const value = query[field];
    return value === undefined || value === null || value === "" ? undefined : value;
  };
  const startTime = given("startTime");
  const endTime = given("endTime");
  const fabricId = given("fabricId");
  const types = given("affectedObjectTypes");
  const status = given("jobStatus");
  const name = given("jobName");
  return {
    ...(startTime === undefined ? {} : { startAt: parseQueryTime(startTime, "startTime") }),
    ...(endTime === undefined ? {} : { endAt: parseQueryTime(endTime, "endTime") }),
    ...(fabricId === undefined ? {} : { fabricName: fabricId.split("/").at(-1) ?? "" }),
    ...(types === undefined ? {} : { targetSegments: parseTypes(types) }),
    ...(status === undefined ? {} : { states: parseStates(status) }),
    ...(name === undefined ? {} : { name }),
  };
}

function parseStates(text: string): readonly JobState[] {
  return listed(text).flatMap((word) => {
    const states = stateNames.filter((state) => armStates[state].toLowerCase() === word.toLowerCase());
    if (states.length > 0 || word.toLowerCase() === "other") return states;
    throw refused("jobStatus", word, [...new Set(Object.values(armStates)), "Other"]);
  });
}

const stateNames: readonly JobState[] = ["notStarted", "inProgress", "suspended", "undoing", "succeeded", "failed", "cancelled"];

function parseTypes(text: string): readonly string[] {
  return segmentsOf(listed(text)) ?? refuseType(text);
}

function refuseType(text: string): never {
  throw refused("affectedObjectTypes", text, ["ProtectionEntity", "RecoveryPlan", "Fabric", "Server", "ProtectionProfile", "Vault"]);
}

function listed(text: string): readonly string[] {
  return text
    .split(",")
    .map((word) => word.trim())
    .filter((word) => word !== "");
}

function refused(field: string, value: string, known: readonly string[]): Fault {
  return new Fault("InputInvalid", `could not read the filter: ${field} does not know ${value.slice(0, 100)}`, {
    evidence: { known },
    action: "name one of those, or several with commas between",
  });
}
