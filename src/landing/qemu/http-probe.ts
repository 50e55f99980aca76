// Asks a landed machine over HTTP, TCP or SSH, again and again, until it answers or the time is over.

import { get } from "node:http";
import { readFile } from "node:fs/promises";
import { z } from "zod";
import type { Clock } from "../../base/clock.ts";
import type { ProbeOutcome } from "../target.ts";
import { tryPort } from "./port-probe.ts";

export const probeOrderShape = z.object({
  /** dnsmasq's leases, read anew at each round. */
  leasesFile: z.string().optional(),
  macs: z.array(z.string()),
  addresses: z.array(z.string()),
  kind: z.enum(["http", "tcp", "ssh"]).default("http"),
  port: z.number().int().min(1).max(65_535),
  path: z.string().max(2000),
  timeoutSeconds: z.number().positive().max(86_400),
});
export type ProbeOrder = z.input<typeof probeOrderShape>;

const pauseMs = 100;
const requestMsMax = 3_000;
const bodyBytesMax = 2 ** 20;

export async function probeHttp(order: ProbeOrder, clock: Clock, signal?: AbortSignal): Promise<ProbeOutcome> {
  const startedMs = clock.monotonicMs();
  const secondsSince = () => (clock.monotonicMs() - startedMs) / 1000;
  let reason = "the machine has no address yet";
  while (secondsSince() < order.timeoutSeconds) {
    signal?.throwIfAborted();
    const addresses = new Set([...order.addresses, ...(await leasedAddresses(order.leasesFile, order.macs))]);
    const tries = await Promise.all([...addresses].map(async (address) => await ask(address, order)));
    for (const answer of tries) {
      if (answer.kind === "said" && (answer.status ?? 200) === 200) return { ...answer, kind: "answered", seconds: secondsSince() };
      reason = answer.kind === "said" ? `it answered ${answer.status}` : answer.reason;
    }
    await clock.sleep(pauseMs, signal);
  }
  return { kind: "silent", seconds: secondsSince(), reason };
}

/** Addresses of the cards in a dnsmasq leases file: time, mac, address, name, client id. */
export async function leasedAddresses(leasesFile: string | undefined, macs: readonly string[]): Promise<readonly string[]> {
  if (leasesFile === undefined) return [];
  const text = await readFile(leasesFile, "utf8").catch(() => ""); // Before the first lease there is no file.
  const wanted = new Set(macs.map((mac) => mac.toLowerCase()));
  return text.split("\n").flatMap((line) => {
    const [, mac, address] = line.split(" ");
    return mac !== undefined && address !== undefined && wanted.has(mac.toLowerCase()) ? [address] : [];
  });
}

type Answer =
  | { readonly kind: "said"; readonly status?: number; readonly body: string }
  | { readonly kind: "failed"; readonly reason: string };

/** "127.0.0.1:8081" names a port of its own, for forwards. */
async function ask(address: string, { kind = "http", port, path }: ProbeOrder): Promise<Answer> {
  const [host = address, ownPort] = address.split(":");
  if (kind !== "http") return await tryPort(kind, host, Number(ownPort ?? port));
  return await new Promise<Answer>((resolve) => {
    const request = get({ host, port: Number(ownPort ?? port), path, agent: false, timeout: requestMsMax }, (response) => {
      const chunks: Buffer[] = [];
      let bytes = 0;
      response.on("data", (chunk: Buffer) => {
        bytes += chunk.length;
        if (bytes <= bodyBytesMax) chunks.push(chunk);
        else response.destroy();
      });
      response.once("end", () => resolve({ kind: "said", status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString("utf8") }));
      response.once("close", () => resolve({ kind: "failed", reason: "the answer was cut" }));
    });
    request.once("timeout", () => request.destroy(new Error("no answer in time")));
    request.once("error", (error) => resolve({ kind: "failed", reason: error.message }));
  });
}
