// What the command line and the hub's authority both name when people sign in.

/** The command line as a public client. */
export const commandLineClientId = "6d1f1cf6-6f47-4a0b-9a0e-8f2f4f0f6b5e";

/** Extension grant (RFC 6749, 4.5): the one-time secret of the local account, from a terminal. */
export const localAccountGrant = "urn:watari:params:oauth:grant-type:local-account";
