// Sends a stored message by its channel, with the receiver's settings as they are now, and test messages at once.

import { fromTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import type { AlertMessage } from "../db/alert-outbox.ts";
import type { HubEvent } from "../db/events.ts";
import type { Resource } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { writeAlertMail, writeTestMail } from "./alert-mail.ts";
import { alertSettingShape, type AlertSetting, type MailServerProperties } from "./alert-shapes.ts";
import { testEventType, toCloudEvent } from "./cloud-event.ts";
import { notSent, type Delivery } from "./delivery.ts";
import type { Destinations } from "./destinations.ts";
import { sendMail, type MailServer } from "./mail-sender.ts";
import { mailServerId, mailServerOf, passwordName } from "./mail-server-type.ts";
import { acceptedOf, type SendMessage } from "./outbox.ts";
import { postWebhook, type WebhookPlace } from "./webhook-sender.ts";
import { secretName, webhookOf } from "./webhook-type.ts";

type Posted = Pick<AlertMessage, "messageId" | "madeAt" | "leftOut"> & { readonly vaultId: string };

export interface Senders {
  readonly send: SendMessage;
  postTest(webhook: Resource, message: Posted, event: HubEvent, signal: AbortSignal): Promise<Delivery>;
  mailTest(server: Resource, wish: { readonly to: string; readonly locale: string }, signal: AbortSignal): Promise<Delivery>;
}

interface Dependencies {
  readonly services: Pick<HubServices, "resources" | "secrets" | "clock" | "random" | "traces">;
  readonly destinations: Destinations;
  /** Message ids end with it. */
  readonly domain: string;
}

export function createSenders(dependencies: Dependencies): Senders {
  const { services, destinations, domain } = dependencies;
  const { resources, clock, random } = services;
  const world = { destinations, clock };
  return {
    send: async (message, alerts, signal) => {
      const receiver = await resources.find(message.targetId);
      if (receiver === undefined) return gone(message);
      const posted = { ...message, vaultId: parseResourceId(message.targetId).parentText };
      if (message.channel === "email") return await mailAlerts(dependencies, receiver, { message, alerts }, signal);
      const place = await placeOf(services, receiver);
      return await postWebhook(world, place, { messageId: message.messageId, body: toCloudEvent(posted, alerts) }, signal);
    },
    postTest: async (webhook, message, event, signal) => {
      const body = toCloudEvent(message, [event], testEventType);
      return await postWebhook(world, await placeOf(services, webhook), { messageId: message.messageId, body }, signal);
    },
    mailTest: async (server, { to, locale }, signal) => {
      const mail = { to: [to], content: writeTestMail(locale), messageId: `<${random.uuid()}@${domain}>`, atMs: clock.nowMs() };
      return await sendMail(world, await serverOf(services, server), mail, signal);
    },
  };
}

/** Who still has to get it, in the language of the vault's setting. */
async function mailAlerts(
  { services, destinations, domain }: Dependencies,
  receiver: Resource,
  { message, alerts }: { readonly message: AlertMessage; readonly alerts: readonly HubEvent[] },
  signal: AbortSignal,
): Promise<Delivery> {
  const { resources, clock } = services;
  const server = await resources.find(mailServerId(receiver.id));
  if (server === undefined)
    return {
      kind: "failed",
      fault: new Fault("AlertNotSent", "could not send the mail: no mail server is set up", {
        action: "set one up: watari alert set-mail-server",
        retry: "later",
      }),
    };
  const setting = alertSettingShape.parse(receiver.properties);
  const has = new Set(acceptedOf(message));
  const to = recipientsOf(setting, mailServerOf(server)).filter((address) => !has.has(address));
  if (to.length === 0) return nobody(setting, has);
  const content = writeAlertMail({ leftOut: message.leftOut, vaultId: receiver.id.parentText }, alerts, setting.locale);
  const mail = { to, content, messageId: `<${message.messageId}@${domain}>`, atMs: fromTimestamp(message.madeAt) };
  return await sendMail({ destinations, clock }, await serverOf(services, server), mail, signal);
}

function recipientsOf(setting: AlertSetting, { ownerEmailAddresses }: Pick<MailServerProperties, "ownerEmailAddresses">) {
  const isToOwners = ["send", "true"].includes(setting.sendToOwners.toLowerCase());
  return [...new Set([...setting.customEmailAddresses, ...(isToOwners ? ownerEmailAddresses : [])])];
}

function nobody({ sendToOwners }: AlertSetting, has: ReadonlySet<string>): Delivery {
  if (has.size > 0) return { kind: "sent", evidence: { accepted: [...has] } };
  return {
    kind: "failed",
    fault: new Fault("AlertNotSent", "could not send the mail: nobody is named who would get it", {
      evidence: { sendToOwners },
      action: "name the owners' addresses at the mail server: watari alert set-mail-server --owner ADDRESS",
      retry: "later",
    }),
  };
}

async function placeOf({ secrets, traces }: Dependencies["services"], webhook: Resource): Promise<WebhookPlace> {
  const { url, caPem, proxyUrl } = webhookOf(webhook);
  const secret = await secrets.find(webhook.id.text, secretName);
  if (secret === undefined)
    throw notSent("the message to the webhook", { reason: "its signing secret is gone; write the webhook again" }, "later");
  return { url, caPem, proxyUrl, secret, traceparent: traces.current()?.traceparent };
}

async function serverOf({ secrets }: Dependencies["services"], resource: Resource): Promise<MailServer> {
  const { user, hasPassword, ...server } = mailServerOf(resource);
  const password = hasPassword ? await secrets.find(resource.id.text, passwordName) : undefined;
  const login = user === undefined || password === undefined ? undefined : { user, password: Buffer.from(password).toString("utf8") };
  return { ...server, login };
}

/** A receiver that was removed while its message waited: nobody is waiting for it any more. */
function gone(message: AlertMessage): Delivery {
  return { kind: "failed", fault: notSent("the message: its receiver was removed", { receiverId: message.targetId }, "never") };
}

export function testEvent(vault: ResourceId, { eventId, at }: { readonly eventId: string; readonly at: string }): HubEvent {
  return {
    ...{ eventId, at, vaultKey: vault.key, code: "TestAlert", kind: "ServerHealth", severity: "Info", component: "Hub" },
    description: "This is a test. Nothing is wrong.",
    affected: { id: vault.text, name: vault.name },
  };
}
