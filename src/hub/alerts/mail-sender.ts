// Sends one mail over SMTP: through an allowed connection, with TLS that is checked, to each recipient once.

import { createTransport } from "nodemailer";
import type { SMTPTransportOptions } from "nodemailer/lib/smtp-transport";
import type { Socket } from "node:net";
import { toDate, type Clock } from "../../base/clock.ts";
import type { Evidence } from "../../contract/errors.ts";
import { failedDelivery, notSent, reasonOf, type Delivery } from "./delivery.ts";
import { secure, type Destinations } from "./destinations.ts";
import type { MailText } from "./alert-mail.ts";

export interface MailServer {
  readonly host: string;
  readonly port: number;
  /** starttls: a server that does not offer TLS is refused. none: only where hub.yaml allows it, and without a password. */
  readonly security: "starttls" | "tls" | "none";
  readonly from: string;
  readonly caPem?: string | undefined;
  readonly proxyUrl?: string | undefined;
  readonly login?: { readonly user: string; readonly password: string } | undefined;
}

export interface Mail {
  readonly to: readonly string[];
  readonly content: MailText;
  /** The same at each attempt, so that receivers know a repetition. */
  readonly messageId: string;
  readonly atMs: number;
}

interface Dependencies {
  readonly destinations: Destinations;
  readonly clock: Clock;
}

const phaseMsMax = 20_000;

/** Waits for no longer than `signal` allows. */
export async function sendMail(
  { destinations, clock }: Dependencies,
  server: MailServer,
  mail: Mail,
  signal: AbortSignal,
): Promise<Delivery> {
  const { host, port, security } = server;
  const evidence = { host, port, security };
  const startedMs = clock.monotonicMs();
  let opened: Socket | undefined;
  try {
    const plain = await destinations.open({ target: { host, port }, isTls: security !== "none", proxyUrl: server.proxyUrl, signal });
    opened = plain;
    const socket = security === "tls" ? await secure(plain, { target: { host, port }, caPem: server.caPem, signal }) : plain;
    const transport = createTransport(optionsOf(server, socket));
    const told = await transport.sendMail({
      from: server.from,
      to: [...mail.to],
      subject: mail.content.subject,
      text: mail.content.text,
      messageId: mail.messageId,
      date: toDate(mail.atMs),
      headers: { "Auto-Submitted": "auto-generated", "X-Auto-Response-Suppress": "All" },
      signal,
    });
    const tookMs = Math.round(clock.monotonicMs() - startedMs);
    const rejected = (told.rejectedErrors ?? []).map((error) => `${error.recipient ?? ""}: ${reasonOf(error)}`);
    const seen = { ...evidence, response: reasonOf(told.response), messageId: told.messageId, accepted: told.accepted, tookMs };
    const deferred = (told.rejectedErrors ?? []).some(({ permanent }) => permanent !== true);
    if (!deferred) return { kind: "sent", evidence: { ...seen, ...(rejected.length === 0 ? {} : { rejected }) } };
    return { kind: "failed", fault: notSent("the mail to all of its recipients", { ...seen, rejected }, "later"), accepted: told.accepted };
  } catch (error) {
    return judge(error, evidence);
  } finally {
    opened?.destroy();
  }
}

function optionsOf({ host, port, security, login, caPem }: MailServer, connection: Socket): SMTPTransportOptions {
  return {
    ...{ host, port, connection, secure: security === "tls", secured: security === "tls" },
    ...{ requireTLS: security === "starttls", ignoreTLS: security === "none" },
    tls: { servername: host, minVersion: "TLSv1.2", ...(caPem === undefined ? {} : { ca: [caPem] }) },
    ...(login === undefined ? {} : { auth: { user: login.user, pass: login.password }, forceAuth: true }),
    ...{ connectionTimeout: phaseMsMax, greetingTimeout: phaseMsMax, socketTimeout: phaseMsMax },
    ...{ disableFileAccess: true, disableUrlAccess: true, logger: false },
  };
}

/** A server that says no for good is believed; a sign-in that fails may be corrected before the next attempt. */
function judge(error: unknown, evidence: Evidence): Delivery {
  if (!(error instanceof Error) || !("permanent" in error || "responseCode" in error)) return failedDelivery(error, "the mail", evidence);
  const code = "responseCode" in error && typeof error.responseCode === "number" ? { responseCode: error.responseCode } : {};
  const isSignIn = "code" in error && error.code === "EAUTH";
  const retry = "permanent" in error && error.permanent === true && !isSignIn ? "never" : "later";
  return { kind: "failed", fault: notSent("the mail", { ...evidence, ...code, reason: reasonOf(error) }, retry, error) };
}
