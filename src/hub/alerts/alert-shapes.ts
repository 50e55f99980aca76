// Shapes of the resources of alerts: what may be written, and what readers see.

import { X509Certificate } from "node:crypto";
import { z } from "zod";

/** Nothing that could begin a header or another command: letters, digits and few signs, in ASCII. */
export const mailAddressShape = z.email("an e-mail address").max(254);
const addressesMax = 50;

/** What the documentation and its samples give: "Send" and "DoNotSend", "true" and "false". */
const ownersShape = z.string().regex(/^(send|donotsend|true|false|)$/i, "Send or DoNotSend");

export const alertSettingShape = z.strictObject({
  sendToOwners: ownersShape.default("DoNotSend"),
  customEmailAddresses: z.array(mailAddressShape).max(addressesMax).default([]),
  locale: z
    .string()
    .max(35)
    .regex(/^([a-z]{2,3}([-_][a-z0-9]{2,8})*)?$/i, "a language such as en-US or ja-JP")
    .default(""),
});
export type AlertSetting = z.infer<typeof alertSettingShape>;

const pemShape = z.string().max(100_000).refine(isPem, "certificates in PEM form").optional();
const httpProxyShape = urlShape(["http:", "https:"]).optional();

const webhookSecretBytes = { min: 24, max: 64 } as const;
/** As "Standard Webhooks" writes secrets. */
const secretShape = z
  .string()
  .regex(/^whsec_[A-Za-z0-9+/]{32,88}={0,2}$/, "whsec_ and 24 to 64 bytes in base64")
  .refine((text) => {
    const { length } = secretBytesOf(text);
    return length >= webhookSecretBytes.min && length <= webhookSecretBytes.max;
  }, "whsec_ and 24 to 64 bytes in base64");

const webhookFields = {
  url: urlShape(["http:", "https:"]),
  enabled: z.boolean().default(true),
  /** Of events that are sent; an empty list means all. */
  severities: z
    .array(z.enum(["Critical", "Warning", "Info"]))
    .max(3)
    .default(["Critical"]),
  eventTypes: z
    .array(z.enum(["VmHealth", "ServerHealth", "AgentHealth", "JobStatus"]))
    .max(4)
    .default([]),
  eventCodes: z
    .array(z.string().regex(/^[A-Za-z0-9]{1,100}$/))
    .max(50)
    .default([]),
  caPem: pemShape,
  proxyUrl: httpProxyShape,
};

/** The secret is written and never read; without one the hub makes it, and rotateSecret shows a new one once. */
export const webhookShape = z.strictObject({ ...webhookFields, signingSecret: secretShape.optional() });
export const webhookAnswerShape = z.object(webhookFields);
export type Webhook = z.infer<typeof webhookAnswerShape>;

const mailServerFields = {
  host: z
    .string()
    .max(253)
    .regex(/^[a-z0-9]([a-z0-9.:-]*[a-z0-9])?$/, "a host name in lower case, or an address"),
  port: z.number().int().min(1).max(65_535).default(587),
  /** starttls and tls both refuse a server whose certificate is not for its name. */
  security: z.enum(["starttls", "tls", "none"]).default("starttls"),
  from: mailAddressShape,
  /** Who is meant by sendToOwners of the vaults' alert settings. */
  ownerEmailAddresses: z.array(mailAddressShape).max(addressesMax).default([]),
  user: z
    .string()
    .min(1)
    .max(256)
    .regex(/^\P{Cc}+$/u)
    .optional(),
  caPem: pemShape,
  proxyUrl: httpProxyShape,
};

/** The password is written and never read; it goes when host, port or user change. */
export const mailServerShape = z.strictObject({
  ...mailServerFields,
  password: z
    .string()
    .min(1)
    .max(1000)
    .regex(/^\P{Cc}+$/u, "one line")
    .optional(),
  hasPassword: z.boolean().optional(),
});
export const mailServerAnswerShape = z.object({ ...mailServerFields, hasPassword: z.boolean() });
export type MailServerProperties = z.infer<typeof mailServerAnswerShape>;

export function secretBytesOf(text: string): Uint8Array {
  return Buffer.from(text.replace(/^whsec_/, ""), "base64");
}

export function secretTextOf(bytes: Uint8Array): string {
  return `whsec_${Buffer.from(bytes).toString("base64")}`;
}

/** A whole URL without a user, a password or a fragment. */
function urlShape(protocols: readonly string[]) {
  return z
    .string()
    .max(2000)
    .refine(
      (text) => {
        const url = URL.canParse(text) ? new URL(text) : undefined;
        return url !== undefined && protocols.includes(url.protocol) && url.username === "" && url.password === "" && url.hash === "";
      },
      `a URL of ${protocols.join(" or ")} without user, password and fragment`,
    );
}

function isPem(text: string): boolean {
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g) ?? [];
  try {
    return blocks.length > 0 && blocks.every((block) => new X509Certificate(block).subject !== undefined);
  } catch {
    return false; // Told by the shape.
  }
}
