// What the hub's orders ask of guests, each by its own word.

import type { OrderRunnerParts } from "../hub/order-runner.ts";
import type { Guests } from "./guests.ts";

type GuestOrders = Pick<OrderRunnerParts, "prepareFence" | "install" | "updateAgent" | "adopt" | "uninstall">;

export function guestOrders(guests: Guests): GuestOrders {
  return {
    prepareFence: async (machineId, signal) => await guests.prepareFence(machineId, signal),
    install: async (order, onStep, signal) => await guests.install(order, onStep, signal),
    updateAgent: async (order, onStep, signal) => await guests.updateAgent(order, onStep, signal),
    adopt: async (order, onStep, signal) => await guests.adopt(order, onStep, signal),
    uninstall: async (machineId, signal) => await guests.uninstall(machineId, signal),
  };
}
