// Faults of people's sign-ins: rows of the table in fault-kinds.ts.

import { row } from "./fault-kind.ts";

export const signInFaultKinds = {
  SignInRefused: row(
    401,
    3,
    "never",
    ["the person refused, or waited too long", "the provider lets the person in no more", "the account was disabled or has ended"],
    "sign in again: watari login; when it stays refused, ask who runs the hub to read its log",
  ),
  IdentityProviderFailed: row(
    502,
    4,
    "later",
    [
      "the provider is down, or the hub does not reach it",
      "its certificate is not of the authority in caFile",
      "the client id or secret is wrong",
    ],
    "check signIn.provider in hub.yaml: issuer, clientId, clientSecretFile, caFile, and the way from the hub to the provider",
  ),
} as const;
