// Asks the kernel by which way an address would be reached. Changes nothing and sends nothing.

import { isIP } from "node:net";
import { z } from "zod";
import { tryCommand } from "../base/run-command.ts";
import { Fault } from "../contract/errors.ts";

const routesShape = z
  .array(
    z.looseObject({
      dev: z.string().optional(),
      gateway: z.string().optional(),
      prefsrc: z.string().optional(),
      metrics: z.array(z.looseObject({ mtu: z.number().optional() })).optional(),
    }),
  )
  .min(1);

export interface Route {
  readonly device: string;
  /** undefined: the address is on the same link. */
  readonly gateway?: string;
  readonly source?: string;
  /** Largest packet that the kernel has learnt to send there, where it has. */
  readonly mtuBytes?: number;
}

/** undefined where the program `ip` is not installed. Throws RouteMissing. */
export async function lookUpRoute(address: string): Promise<Route | undefined> {
  if (isIP(address) === 0) throw new TypeError("not an address");
  const answer = await tryCommand("ip", ["-j", "route", "get", address]).catch(() => undefined); // Not installed: nothing is known.
  if (answer === undefined) return undefined;
  const parsed = answer.exitCode === 0 ? routesShape.safeParse(JSON.parse(answer.stdout)) : undefined;
  const route = parsed?.data?.[0];
  if (route === undefined)
    throw new Fault("RouteMissing", `no route leads to ${address}`, {
      evidence: { address, kernel: answer.stderr.trim().slice(0, 200) },
      action: `ip route add ${address} via GATEWAY, with the gateway of the private line; look with: ip route get ${address}`,
    });
  const mtuBytes = route.metrics?.find(({ mtu }) => mtu !== undefined)?.mtu;
  return {
    device: route.dev ?? "",
    ...(route.gateway === undefined ? {} : { gateway: route.gateway }),
    ...(route.prefsrc === undefined ? {} : { source: route.prefsrc }),
    ...(mtuBytes === undefined ? {} : { mtuBytes }),
  };
}
