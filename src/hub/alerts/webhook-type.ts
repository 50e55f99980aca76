// Watari.Alerts/webhooks on a vault: where alerts are posted, which of them, and the secret that signs them, which nobody can read.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineAction, defineResource, type ResourceType } from "../api/resource-type.ts";
import type { Resource } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { secretBytesOf, secretTextOf, webhookAnswerShape, webhookShape, type Webhook } from "./alert-shapes.ts";
import type { Delivery } from "./delivery.ts";
import { targetOf, type Destinations } from "./destinations.ts";
import { requireVault, testAnswerOf } from "./on-vault.ts";

const webhookType = "Watari.Alerts/webhooks";
const webhooksMax = 10;
export const secretName = "signingSecret";
const freshSecretBytes = 32;

export interface WebhookDependencies {
  readonly services: Pick<HubServices, "resources" | "secrets" | "random">;
  readonly destinations: Destinations;
  /** Sends a test alert now. */
  readonly test: (webhook: Resource, signal: AbortSignal) => Promise<Delivery>;
}

export function webhookResource({ services, destinations, test }: WebhookDependencies): ResourceType {
  const { resources, secrets, random } = services;
  return defineResource({
    type: webhookType,
    within: "anything",
    properties: webhookShape,
    canPatch: true,
    onPut: async (call, { properties, existing }) => {
      requireVault(call.id);
      const { signingSecret, ...stored } = properties;
      const url = new URL(stored.url);
      destinations.check({ target: targetOf(url), isTls: url.protocol === "https:", proxyUrl: stored.proxyUrl });
      if (existing === undefined) await requirePlace(resources, call.id);
      if (signingSecret !== undefined) await secrets.replace(call.id.text, secretName, secretBytesOf(signingSecret));
      else await secrets.getOrCreate(call.id.text, secretName, () => random.bytes(freshSecretBytes));
      return { kind: "done", properties: stored };
    },
    onDelete: async (call) => {
      await secrets.removeAll(call.id.text);
      return { kind: "done" };
    },
    actions: {
      test: defineAction({
        body: z.strictObject({}),
        run: async (call, _body, webhook) => ({ kind: "done", body: testAnswerOf(await test(webhook, call.signal)) }),
      }),
      rotateSecret: defineAction({
        body: z.strictObject({}),
        run: async (call) => {
          const secret = random.bytes(freshSecretBytes);
          await secrets.replace(call.id.text, secretName, secret);
          return { kind: "done", body: { signingSecret: secretTextOf(secret) } }; // The only time that it is shown.
        },
      }),
    },
  });
}

async function requirePlace(resources: HubServices["resources"], id: ResourceId): Promise<void> {
  const present = await resources.list({ under: id.parentText, type: webhookType, countMax: webhooksMax });
  if (present.length < webhooksMax) return;
  throw new Fault("StateConflict", `could not add the webhook ${id.name}: the vault has ${webhooksMax} of them`, {
    evidence: { vault: parseResourceId(id.parentText).name, webhooksMax },
    action: "remove one of them first",
    retry: "never",
  });
}

export function webhookOf(resource: Resource): Webhook {
  return webhookAnswerShape.parse(resource.properties);
}
