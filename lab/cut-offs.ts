// Faults that tests and operators may bring about while the lab is up; each is a value that takes itself back.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "../src/base/run-command.ts";
import { internet, landing, line, onprem } from "./addresses.ts";
import { overrideNames } from "./names.ts";
import { labPlace, namespaceOf } from "./place.ts";
import { startProxy, stopProxy } from "./proxy.ts";

export interface PrefixOption {
  readonly prefix?: string | undefined;
}

/** Pulls the private line out or plugs it in again; its routes come back with it. */
export async function setPrivateLine(state: "up" | "down", options: PrefixOption = {}): Promise<void> {
  const namespace = namespaceOf(labPlace(options), "onprem");
  await runCommand("ip", ["-n", namespace, "link", "set", "line0", state]);
  if (state === "down") return;
  // The kernel forgot the route with the link.
  await runCommand("ip", ["-n", namespace, "route", "replace", landing.network, "via", line.landing, "src", onprem.appliance]);
  const far = namespaceOf(labPlace(options), "landing");
  await runCommand("ip", ["-n", far, "route", "replace", onprem.network, "via", line.onprem]);
}

/** Stops the proxy or starts it again. */
export async function setProxy(state: "up" | "down", options: PrefixOption = {}): Promise<void> {
  const place = labPlace(options);
  await stopProxy(place);
  if (state === "up") await startProxy(place, join(place.stateFolder, "secrets", "proxy-password"));
}

/** Makes the site's resolver answer whole names with given addresses; an empty record takes all of it back. */
export async function setSiteNames(records: Readonly<Record<string, string>>, options: PrefixOption = {}): Promise<void> {
  await overrideNames(labPlace(options), records);
}

/** The classic mistake: a private name answered with its public address. */
export async function leakPrivateName(name: string, options: PrefixOption = {}): Promise<void> {
  await setSiteNames({ [name]: internet.services }, options);
}

/** The lines of the proxy's access log, oldest first. */
export async function proxyLog(options: PrefixOption = {}): Promise<readonly string[]> {
  const text = await readFile(join(labPlace(options).stateFolder, "squid", "access.log"), "utf8").catch(() => ""); // Nothing asked yet.
  return text.split("\n").filter((row) => row !== "");
}
