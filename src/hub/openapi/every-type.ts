// Every resource type that this program has, without a running hub: for documents. Definitions only close over what they are given.

import { registerAlerts } from "../alerts/register.ts";
import type { TypeTable } from "../api/resource-type.ts";
import { parseHubConfig } from "../hub-config.ts";
import { createPlatform } from "../hub-platform.ts";
import { publicNamesOf } from "../private-link/public-door.ts";
import { registerReplication } from "../replication/register.ts";

export async function everyType(): Promise<TypeTable> {
  const domain = "watari.test";
  const open = registerReplication({ openWorld: async () => await Promise.resolve(hollow("world")) });
  const extensions = [await open(hollow("services"), { domain }), await registerAlerts()(hollow("services"), { domain })];
  return createPlatform({
    config: parseHubConfig({ domain, stateDir: "/nonexistent", publicAddresses: ["127.0.0.1"], networks: [] }),
    services: hollow("services"),
    stores: hollow("stores"),
    authority: hollow("authority"),
    names: publicNamesOf(domain),
    privateLink: () => hollow("privateLink"),
    blobs: hollow("blobs"),
    accountsChanged: () => hollow("accountsChanged"),
    extraTypes: extensions.flatMap(({ types }) => types),
    submit: hollow("submit"),
  }).types;
}

/** Stands for a service of a running hub; any part of it can be taken, and calling one is an assertion. */
function hollow(path: string): never {
  const call = (): never => {
    throw new Error(`assertion failed: ${path} was called while types were defined`);
  };
  // The one place where a type is claimed without a value: nothing of it may run.
  return new Proxy(call, {
    get: (_target, name) => (name === "then" || typeof name === "symbol" ? undefined : hollow(`${path}.${name}`)),
  }) as never;
}
