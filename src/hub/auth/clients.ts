// Programs that people may sign in to: Watari's command line, Microsoft's public clients, and those that the configuration adds.

import { commandLineClientId } from "../../contract/sign-in.ts";
import type { SignInConfig } from "./sign-in-config.ts";

export interface PublicClient {
  readonly clientId: string;
  readonly name: string;
}

/** Microsoft's ids are those that its libraries send when a program names no client of its own. */
const knownClients: readonly PublicClient[] = [
  { clientId: commandLineClientId, name: "The command line of Watari" },
  { clientId: "04b07795-8ddb-461a-bbee-02f9e1bf7b46", name: "A program with Microsoft's identity library" },
  { clientId: "1950a258-227b-4e31-a9cf-717495945fc2", name: "Azure PowerShell" },
];

export function findClient(config: SignInConfig, clientId: string): PublicClient | undefined {
  return [...knownClients, ...config.clients].find((client) => client.clientId === clientId.toLowerCase());
}

/** Public clients get their answer on the machine that asked, at any port (RFC 8252, 7.3 and 8.3). */
export function isLoopback(redirectUri: string): boolean {
  if (!URL.canParse(redirectUri)) return false;
  const { protocol, hostname, username, password, hash } = new URL(redirectUri);
  const isPlain = username === "" && password === "" && hash === "" && !redirectUri.includes("#");
  return protocol === "http:" && ["localhost", "127.0.0.1", "[::1]"].includes(hostname) && isPlain;
}
