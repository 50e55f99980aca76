// Adds alerts to a hub: its resource types, the outbox, and the two ways to send.

import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { createRateLimit } from "../api/rate-limits.ts";
import { parseResourceId } from "../api/resource-id.ts";
import type { Resource } from "../db/resources.ts";
import type { HubExtension, HubServices, OpenExtension } from "../services.ts";
import { alertsConfigShape } from "./alerts-config.ts";
import { alertSettingResource } from "./alert-setting-type.ts";
import { deliveryResource } from "./delivery-type.ts";
import type { Delivery } from "./delivery.ts";
import { createDestinations } from "./destinations.ts";
import { mailServerResource } from "./mail-server-type.ts";
import { outboxLimits, startOutbox, type OutboxDependencies, type OutboxLimits } from "./outbox.ts";
import { createSenders, testEvent, type Senders } from "./senders.ts";
import { webhookResource } from "./webhook-type.ts";

export interface AlertDependencies {
  readonly limits?: Partial<OutboxLimits>;
  readonly onMoment?: OutboxDependencies["onMoment"];
}

/** A test sends at once whoever asks: so many in a row to one receiver, then one every ten seconds. */
const testRate = { perSecond: 0.1, burst: 3 };

export function registerAlerts(dependencies: AlertDependencies = {}): OpenExtension {
  return async (services, { alerts, domain }) => {
    const { clock, random, log, database } = services;
    const limits = { ...outboxLimits, ...dependencies.limits };
    const destinations = createDestinations(alerts ?? alertsConfigShape.parse({}));
    const senders = createSenders({ services, destinations, domain });
    const testing = createTesting(services, senders, limits);
    let outbox: AsyncDisposable | undefined;
    const extension: HubExtension = {
      name: "alerts",
      types: [
        alertSettingResource(services),
        webhookResource({ services, destinations, test: testing.webhook }),
        mailServerResource({ services, destinations, test: testing.mailServer }),
        deliveryResource(services),
      ],
      start: async () => {
        const { onMoment } = dependencies;
        outbox = startOutbox({
          ...{ database, clock, random, log, limits, send: senders.send, traces: services.traces },
          ...(onMoment === undefined ? {} : { onMoment }),
        });
      },
      [Symbol.asyncDispose]: async () => await outbox?.[Symbol.asyncDispose](),
    };
    return extension;
  };
}

function createTesting({ clock, random }: HubServices, senders: Senders, { sendMsMax }: OutboxLimits) {
  const rate = createRateLimit({ rate: testRate, clock });
  const bounded = async (receiver: Resource, signal: AbortSignal, send: (limit: AbortSignal) => Promise<Delivery>): Promise<Delivery> => {
    const taken = rate.take(receiver.id.key);
    if (taken.kind === "refused")
      throw new Fault("TooManyRequests", `could not test ${receiver.id.name}: it was tested a moment ago`, {
        evidence: { retryAfterSeconds: taken.waitSeconds },
      });
    return await send(AbortSignal.any([signal, AbortSignal.timeout(sendMsMax)]));
  };
  return {
    webhook: async (webhook: Resource, signal: AbortSignal): Promise<Delivery> => {
      const vault = parseResourceId(webhook.id.parentText);
      const message = { messageId: random.uuid(), madeAt: toTimestamp(clock.nowMs()), leftOut: 0, vaultId: vault.text };
      const event = testEvent(vault, { eventId: random.uuid(), at: message.madeAt });
      return await bounded(webhook, signal, async (limit) => await senders.postTest(webhook, message, event, limit));
    },
    mailServer: async (
      server: Resource,
      { to, locale }: { readonly to: string; readonly locale: string },
      signal: AbortSignal,
    ): Promise<Delivery> => await bounded(server, signal, async (limit) => await senders.mailTest(server, { to, locale }, limit)),
  };
}
