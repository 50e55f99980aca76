// Posts one signed CloudEvent to a webhook: through an allowed connection, following nobody, reading no more of the answer than its status.

import { createHmac } from "node:crypto";
import { Client } from "undici";
import type { Clock } from "../../base/clock.ts";
import type { Evidence } from "../../contract/errors.ts";
import { cloudEventContentType } from "./cloud-event.ts";
import { failedDelivery, notSent, type Delivery } from "./delivery.ts";
import { secure, targetOf, type Destinations } from "./destinations.ts";

export interface WebhookPlace {
  readonly url: string;
  readonly caPem?: string | undefined;
  readonly proxyUrl?: string | undefined;
  readonly secret: Uint8Array;
  /** W3C trace context to hand on. */
  readonly traceparent?: string | undefined;
}

interface Dependencies {
  readonly destinations: Destinations;
  readonly clock: Clock;
}

const retryAfterMsMax = 3600_000;
/** Answers that may be another one later: RFC 9110 and RFC 8470. */
const passingStatuses: ReadonlySet<number> = new Set([408, 409, 421, 425, 429]);

/** The headers of "Standard Webhooks" 1.0: a receiver of any language has a library that checks them. */
function signatureHeaders(
  secret: Uint8Array,
  { messageId, atMs, body }: { readonly messageId: string; readonly atMs: number; readonly body: string },
): Readonly<Record<string, string>> {
  const seconds = String(Math.floor(atMs / 1000));
  const signature = createHmac("sha256", secret).update(`${messageId}.${seconds}.${body}`, "utf8").digest("base64");
  return { "webhook-id": messageId, "webhook-timestamp": seconds, "webhook-signature": `v1,${signature}` };
}

/** Waits for no longer than `signal` allows. */
export async function postWebhook(
  { destinations, clock }: Dependencies,
  place: WebhookPlace,
  message: { readonly messageId: string; readonly body: string },
  signal: AbortSignal,
): Promise<Delivery> {
  const url = new URL(place.url);
  const target = targetOf(url);
  const isTls = url.protocol === "https:";
  const startedMs = clock.monotonicMs();
  const evidence: Evidence = { host: target.host, port: target.port, webhookId: message.messageId };
  const client = new Client(url.origin, {
    allowH2: false,
    connect: (_options, callback) => {
      openSocket().then(
        (socket) => callback(null, socket),
        (error: unknown) => callback(error instanceof Error ? error : new Error(String(error)), null),
      );
    },
  });
  const openSocket = async () => {
    const socket = await destinations.open({ target, isTls, proxyUrl: place.proxyUrl, signal });
    return isTls ? await secure(socket, { target, caPem: place.caPem, signal }) : socket;
  };
  try {
    const answer = await client.request({
      method: "POST",
      path: `${url.pathname}${url.search}`,
      headers: {
        "content-type": cloudEventContentType,
        "user-agent": "watari-hub",
        ...(place.traceparent === undefined ? {} : { traceparent: place.traceparent }),
        ...signatureHeaders(place.secret, { ...message, atMs: clock.nowMs() }),
      },
      body: message.body,
      signal,
    });
    answer.body.on("error", () => undefined); // Cut off below: nobody reads it, so that nobody is shown what answers inside.
    const seen = { ...evidence, status: answer.statusCode, tookMs: Math.round(clock.monotonicMs() - startedMs) };
    if (answer.statusCode >= 200 && answer.statusCode < 300) return { kind: "sent", evidence: seen };
    return refusal(answer.statusCode, answer.headers["retry-after"], seen);
  } catch (error) {
    return failedDelivery(error, "the message to the webhook", evidence);
  } finally {
    await client.destroy();
  }
}

/** Redirects are not followed: the operator allowed this receiver. */
function refusal(status: number, retryAfter: string | string[] | undefined, seen: Evidence): Delivery {
  const mayPass = status >= 500 || passingStatuses.has(status);
  const seconds = Number(Array.isArray(retryAfter) ? retryAfter[0] : retryAfter);
  const wait = mayPass && Number.isFinite(seconds) && seconds > 0 ? { waitMs: Math.min(retryAfterMsMax, seconds * 1000) } : {};
  return { kind: "failed", fault: notSent("the message to the webhook", seen, mayPass ? "later" : "never"), ...wait };
}
