// The rows of the table of faults that only a check of the network finds.

import { row, type FaultKind } from "./fault-kind.ts";

export const networkFaultKinds = {
  NameAnswersDiffer: row(
    502,
    4,
    "later",
    ["a hosts line or a record is stale", "two resolvers have different views", "the private endpoint was made again with another address"],
    "make every source named in the evidence answer with the expected address, and remove hosts lines that nobody keeps",
  ),
  PacAnswerWrong: row(
    502,
    4,
    "later",
    ["the proxy auto-configuration file does not know the private names", "it names another proxy"],
    "hand out the file that `watari net render pac` writes",
  ),
  RouteMissing: row(
    502,
    4,
    "later",
    ["no route leads to the private line", "an interface is down"],
    "add the route named in the evidence, and one back from the other side",
  ),
  TlsAuthorityUnknown: row(
    502,
    4,
    "never",
    [
      "something in between opens TLS and signs it anew",
      "the service's authority was replaced",
      "the authority's certificate is not installed here",
    ],
    "exempt the name from TLS inspection, or trust the issuer in the evidence if it is yours",
  ),
  ClockSkewed: row(
    502,
    4,
    "later",
    ["this machine's clock is not kept", "the time server is not reachable", "the other side's clock is wrong"],
    "set this machine's clock by a time server, for example with chrony, and compare again",
  ),
  CertificateEnding: row(
    409,
    3,
    "later",
    ["the agent has not spoken for long, so that it was not told to renew", "the agent is too old to renew by itself"],
    "start the agent where it is silent and update it where it is old; where its certificate has ended, register it again: its replica stays",
  ),
  AgentCertificateEnded: row(
    401,
    3,
    "never",
    ["the machine was off while its certificate ended", "the appliance's clock is wrong"],
    "see the appliance's clock; then register the agent again on the machine: its replica stays",
  ),
  PacketsLost: row(
    502,
    4,
    "later",
    [
      "the way passes smaller packets than this machine sends, and drops the message that says so",
      "a tunnel takes its part of each packet",
    ],
    "let ICMP \"fragmentation needed\" pass, or clamp TCP's MSS on the line's router, or set net.ipv4.tcp_mtu_probing=1 here",
  ),
} satisfies Record<string, FaultKind>;
