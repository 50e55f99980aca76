// Calls the appliance that runs on this machine, by its admin socket.

import { join } from "node:path";
import { Agent, request } from "undici";
import { adminRoutes, adminSocketName, type AdminRequest, type AdminResponse, type AdminRoute } from "../../contract/appliance-admin.ts";
import { Fault, fromReport } from "../../contract/errors.ts";
import { faultReportShape } from "../../contract/shapes.ts";

const callTimeoutMs = 600_000;
/** A whole vault may have to be read. */
const vaultCallTimeoutMs = 7 * 86_400_000;

/** Throws the appliance's Fault as it was given, or ApplianceNotRunning. */
export async function callAppliance<Route extends AdminRoute>(
  stateFolder: string,
  route: Route,
  body: AdminRequest<Route>,
  signal?: AbortSignal,
): Promise<AdminResponse<Route>> {
  const socketPath = join(stateFolder, adminSocketName);
  const { path, response: shape } = adminRoutes[route];
  await using cleanup = new AsyncDisposableStack();
  const timeoutMs = path.startsWith("/v1/vault/") ? vaultCallTimeoutMs : callTimeoutMs;
  const dispatcher = new Agent({ connect: { socketPath }, headersTimeout: timeoutMs, bodyTimeout: timeoutMs });
  cleanup.defer(async () => await dispatcher.destroy());
  const options = { method: "POST", dispatcher, headers: { "content-type": "application/json" }, body: JSON.stringify(body) } as const;
  const response = await request(`http://appliance${path}`, { ...options, ...(signal === undefined ? {} : { signal }) }).catch(
    (error: unknown) => {
      throw new Fault("ApplianceNotRunning", "could not reach the appliance on this machine", {
        evidence: { socketPath },
        action: `start it: watari appliance run --state ${stateFolder}`,
        cause: error,
      });
    },
  );
  const value: unknown = await response.body.json();
  if (response.statusCode !== 200) throw fromReport(faultReportShape.parse(value));
  return shape.parse(value) as AdminResponse<Route>; // The route's own shape.
}
