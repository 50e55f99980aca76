// Faults of alerts: what keeps a message from its receiver.

import { row, type FaultKind } from "./fault-kind.ts";

export const alertFaultKinds = {
  AlertDestinationRefused: row(
    403,
    3,
    "never",
    ["the hub's configuration does not name this host and port for alerts", "the name leads to an address that alerts never go to"],
    "let the operator of the hub add the host and port to alerts.allow in hub.yaml, then start the hub again",
  ),
  AlertNotSent: row(
    502,
    4,
    "later",
    ["the receiver is down or refuses the message", "a user, password or secret is wrong", "a firewall stands between"],
    "correct what the evidence shows, then send a test alert: watari alert test",
  ),
} satisfies Record<string, FaultKind>;
