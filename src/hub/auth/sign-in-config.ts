// The part of the hub's configuration that says how people sign in.

import { z } from "zod";
import { proxyUrlShape } from "../../connectivity/network-shapes.ts";

const claimNameShape = z.string().min(1).max(200);
const issuerShape = z.url({ protocol: /^https$/, error: "an https address" }).max(500);

const providerShape = z.strictObject({
  /** Exactly as the provider's documents name it. */
  issuer: issuerShape,
  clientId: z.string().min(1).max(300),
  /** Absent: the hub is a public client there, and PKCE alone protects the code. */
  clientSecretFile: z.string().min(1).max(4096).optional(),
  /** Certificate authorities of the provider, PEM; the system's own unless told. */
  caFile: z.string().min(1).max(4096).optional(),
  /** A forward proxy that leads to the provider, where the hub has no other way out. */
  proxy: z
    .strictObject({
      url: proxyUrlShape,
      /** File with one line "user:password", readable by the hub only. */
      credentialsFile: z.string().min(1).max(4096).optional(),
    })
    .optional(),
  /** What the sign-in page calls it. */
  name: z.string().min(1).max(60).default("your organisation"),
  /** Add offline_access where the provider wants it for a refresh token. */
  scopes: z
    .array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]{1,200}$/))
    .min(1)
    .max(20)
    .default(["openid", "profile", "email"]),
  claims: z
    .strictObject({
      name: claimNameShape.default("name"),
      userName: claimNameShape.default("preferred_username"),
      groups: claimNameShape.default("groups"),
    })
    .prefault({}),
  clockToleranceSeconds: z.number().int().min(0).max(300).default(30),
});

export const signInConfigShape = z
  .strictObject({
    provider: providerShape.refine(({ scopes }) => scopes.includes("openid"), { message: "openid is needed", path: ["scopes"] }).optional(),
    /** Longest time that one sign-in lasts, however often it is renewed. */
    sessionHours: z.number().positive().max(720).default(12),
    /** Public clients besides Watari's own and Microsoft's: programs that people sign in to. */
    clients: z
      .array(z.strictObject({ clientId: z.uuid().transform((id) => id.toLowerCase()), name: z.string().min(1).max(60) }))
      .max(50)
      .default([]),
  })
  .prefault({});

export type SignInConfig = z.infer<typeof signInConfigShape>;
export type ProviderConfig = z.infer<typeof providerShape>;
