// Job RenewCertificate: an appliance makes a new key, gets a certificate for it and uses it; the one before ends with the first use.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import type { ActionOutcome, ArmCall } from "../api/resource-type.ts";
import type { JsonObject } from "../db/resources.ts";
import { defineJob, type JobKind } from "../jobs/job.ts";
import { giveOrder, requireKnownOrder } from "./give-order.ts";
import { jobTarget } from "./item-start.ts";
import { applianceOf } from "./names.ts";
import type { Replication, ReplicationFront } from "./world.ts";

/** "Cloud" is the one type of the documentation: the certificate by which the site is known to the service. */
export const renewBody = z.strictObject({
  properties: z.strictObject({ renewCertificateType: z.string().max(64).optional() }).optional(),
});

const parametersShape = z.object({ applianceId: z.string(), answer: z.record(z.string(), z.unknown()) });

export function defineRenewCertificate(world: Replication): JobKind {
  return defineJob<z.infer<typeof parametersShape>, { readonly certificateEndsAt?: string }>({
    kind: "RenewCertificate",
    title: "renew the certificate",
    parameters: parametersShape,
    steps: [
      {
        name: "renew",
        title: "let the appliance get and use a new certificate",
        run: async (context) => {
          const { certificateEndsAt } = await giveOrder(world.services, context, {
            applianceId: context.parameters.applianceId,
            draft: { kind: "renewCertificate" },
            label: "renewCertificate",
            waitSecondsMax: world.limits.shortOrderSeconds,
            pollMs: world.limits.pollMs,
          });
          if (certificateEndsAt === undefined)
            throw new Fault("Internal", "the appliance answered the order renewCertificate without a date");
          return { certificateEndsAt };
        },
        undo: "the certificate before is not accepted any more once the new one was used; an unused one harms nothing",
      },
    ],
    settle: async (_db, { parameters, outcome }) => (outcome.kind === "succeeded" ? parameters.answer : undefined),
    restart: async () => undefined,
  });
}

export async function beginRenewal(
  { services, engine }: ReplicationFront,
  { id, caller }: ArmCall,
  type: string | undefined,
  show: () => Promise<JsonObject | undefined>,
): Promise<ActionOutcome> {
  if (type !== undefined && type.toLowerCase() !== "cloud")
    throw new Fault("InputInvalid", `could not renew the certificate: its type ${type} is unknown`, {
      evidence: { renewCertificateType: type },
      action: 'leave renewCertificateType out, or give "Cloud"',
    });
  const applianceId = applianceOf(id);
  await requireKnownOrder(services, applianceId, "renewCertificate");
  const target = { ...jobTarget(id, id.name, caller.name), lockKey: `certificate:${applianceId}` };
  const parameters = { applianceId, answer: (await show()) ?? {} };
  return { kind: "accepted", operationId: await engine.submit({ kind: "RenewCertificate", ...target, parameters }) };
}
