// Calls the appliance that served this page; a refusal is its fault, as it was given.

import type { SetupRequest, SetupResponse, SetupRoute } from "../../contract/appliance-setup.ts";
import type { FaultReport } from "../../contract/errors.ts";

export class Refused extends Error {
  readonly fault: FaultReport;

  constructor(fault: FaultReport) {
    super(fault.message);
    this.fault = fault;
  }
}

let token = "";

/** Of the session; the server wants it in each call beside the cookie. */
export function keepToken(given: string): void {
  token = given;
}

/** Throws Refused, also when the appliance does not answer. */
export async function call<Route extends SetupRoute>(route: Route, body: SetupRequest<Route>): Promise<SetupResponse<Route>> {
  const headers = { "content-type": "application/json", "x-watari-token": token };
  const response = await fetch(`/api/${route}`, { method: "POST", headers, body: JSON.stringify(body) }).catch(() => undefined);
  const value: unknown = await response?.json().catch(() => undefined); // An answer that is not JSON is none of the appliance's.
  if (response?.ok === true && value !== undefined) return value as SetupResponse<Route>; // The server's own shape.
  throw new Refused(isFault(value) ? value : silent);
}

const silent: FaultReport = {
  id: "ApplianceNotRunning",
  message: "the appliance does not answer",
  causes: ["it starts anew", "the line between this browser and the appliance is cut"],
  action: "wait a moment and try again; on the console: systemctl status watari-appliance",
  evidence: {},
  retry: "later",
};

function isFault(value: unknown): value is FaultReport {
  return typeof value === "object" && value !== null && "id" in value && "message" in value && "action" in value;
}
