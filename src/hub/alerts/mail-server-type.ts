// Watari.Alerts/mailServers/default of the subscription: the server that takes the hub's mails, and its password, which nobody can read.

import { z } from "zod";
import { Fault } from "../../contract/errors.ts";
import { parseResourceId, type ResourceId } from "../api/resource-id.ts";
import { defineAction, defineResource, type ResourceType } from "../api/resource-type.ts";
import type { Resource } from "../db/resources.ts";
import type { HubServices } from "../services.ts";
import { mailAddressShape, mailServerAnswerShape, mailServerShape, type MailServerProperties } from "./alert-shapes.ts";
import type { Delivery } from "./delivery.ts";
import type { Destinations } from "./destinations.ts";
import { testAnswerOf } from "./on-vault.ts";

const mailServerType = "Watari.Alerts/mailServers";
const serverName = "default";
export const passwordName = "password";

export interface MailServerDependencies {
  readonly services: Pick<HubServices, "resources" | "secrets">;
  readonly destinations: Destinations;
  /** Sends a test mail now. */
  readonly test: (server: Resource, wish: { readonly to: string; readonly locale: string }, signal: AbortSignal) => Promise<Delivery>;
}

export function mailServerResource({ services, destinations, test }: MailServerDependencies): ResourceType {
  const { secrets } = services;
  return defineResource({
    type: mailServerType,
    within: "subscription",
    properties: mailServerShape,
    canPatch: true,
    onPut: async (call, { properties, existing }) => {
      requireName(call.id);
      const { password, hasPassword: _told, ...stored } = properties;
      destinations.check({ target: stored, isTls: stored.security !== "none", proxyUrl: stored.proxyUrl });
      refusePlainPassword(stored, password);
      const before = existing === undefined ? undefined : mailServerOf(existing);
      // A password goes only to the server for which it was given.
      const isSame = before !== undefined && (["host", "port", "user", "security"] as const).every((name) => before[name] === stored[name]);
      const keeps = password === undefined && isSame && stored.user !== undefined && before.hasPassword;
      if (password !== undefined) await secrets.replace(call.id.text, passwordName, Buffer.from(password, "utf8"));
      else if (!keeps) await secrets.removeAll(call.id.text);
      return { kind: "done", properties: { ...stored, hasPassword: password !== undefined || keeps } };
    },
    onDelete: async (call) => {
      await secrets.removeAll(call.id.text);
      return { kind: "done" };
    },
    actions: {
      test: defineAction({
        body: z.strictObject({ to: mailAddressShape, locale: z.string().max(35).default("") }),
        run: async (call, body, server) => ({ kind: "done", body: testAnswerOf(await test(server, body, call.signal)) }),
      }),
    },
  });
}

export function mailServerId(scope: ResourceId): ResourceId {
  return parseResourceId(`/subscriptions/${scope.subscriptionId}/providers/${mailServerType}/${serverName}`);
}

export function mailServerOf(resource: Resource): MailServerProperties {
  return mailServerAnswerShape.parse(resource.properties);
}

function requireName(id: ResourceId): void {
  if (id.name.toLowerCase() === serverName && parseResourceId(id.parentText).parentText === "") return;
  throw new Fault("InputInvalid", `could not save the mail server ${id.name}: a subscription has one, named ${serverName}`, {
    evidence: { resourceId: id.text, expected: mailServerId(id).text },
  });
}

function refusePlainPassword({ security, user }: Pick<MailServerProperties, "security" | "user">, password: string | undefined): void {
  const problems = [
    ...(security === "none" && user !== undefined ? ["security: a user and a password are sent only over TLS"] : []),
    ...(password !== undefined && user === undefined ? ["user: a password needs one"] : []),
  ];
  if (problems.length > 0) throw new Fault("InputInvalid", "could not save the mail server", { evidence: { problems } });
}
