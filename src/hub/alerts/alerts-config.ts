// Where alerts may go: what the operator of the hub allows in hub.yaml, beside what nobody may allow.

import { z } from "zod";

const hostShape = z
  .string()
  .max(253)
  .regex(
    /^\.?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$|^[0-9a-f:.]+$/,
    "a host name in lower case, .suffix or an address",
  );

const destinationShape = z.strictObject({
  /** A name, an address, or ".example.test" for every name below it. */
  host: hostShape,
  port: z.number().int().min(1).max(65_535),
  /** Where the name may lead; anywhere but to this host itself unless told. */
  addresses: z
    .array(z.union([z.cidrv4(), z.cidrv6(), z.ipv4(), z.ipv6()]))
    .min(1)
    .max(16)
    .optional(),
  /** Allows a message without TLS. Passwords are never sent without it. */
  plain: z.boolean().default(false),
});

export const alertsConfigShape = z.strictObject({
  /** Web hooks, mail servers and proxies that alerts may be sent to; nothing else is reached. */
  allow: z.array(destinationShape).max(64).default([]),
});

export type AlertsConfig = z.infer<typeof alertsConfigShape>;
export type AllowedDestination = z.infer<typeof destinationShape>;
