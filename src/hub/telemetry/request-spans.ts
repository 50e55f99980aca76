// A span for each request of a face: route, status and ids, never a path, a query, a header or a body.

import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Traces, TraceSpan } from "./traces.ts";

export interface FaceTracing {
  readonly traces: Traces;
  readonly routeOf: (path: string) => string;
  readonly face: string;
}

const serverErrorStatus = 500;

/** The caller's trace context is taken up, so that a client's own trace goes on here. */
export function traceRequests(
  instance: FastifyInstance,
  { traces, routeOf, face }: FaceTracing,
  correlationIdOf: (request: FastifyRequest) => string,
): void {
  const spans = new WeakMap<FastifyRequest, TraceSpan>();
  instance.addHook("onRequest", async (request) => {
    const { traceparent, tracestate } = request.headers;
    const from = typeof traceparent === "string" ? { traceparent, ...(typeof tracestate === "string" ? { tracestate } : {}) } : {};
    const clientId = request.headers["x-ms-client-request-id"];
    const span = traces.start({
      name: request.method,
      kind: "server",
      from,
      attributes: {
        "http.request.method": request.method,
        "watari.face": face,
        "watari.request_id": request.id,
        "watari.correlation_id": correlationIdOf(request),
        ...(typeof clientId === "string" && /^[\w-]{1,64}$/.test(clientId) ? { "watari.client_request_id": clientId } : {}),
      },
    });
    spans.set(request, span);
  });
  // Last before the handler: what reads a body runs in contexts of its own.
  instance.addHook("preHandler", (request, _reply, done) => {
    const span = spans.get(request);
    if (span === undefined) done();
    else span.run(done);
  });
  instance.addHook("onResponse", async (request, reply) => {
    const span = spans.get(request);
    if (span === undefined) return;
    const template = request.routeOptions.url ?? "none";
    const route = template.endsWith("*") ? routeOf(request.url.split("?", 1)[0] ?? "") : template;
    span.rename(`${request.method} ${route}`);
    span.set({ "http.route": route, "http.response.status_code": reply.statusCode });
    span.end(reply.statusCode >= serverErrorStatus ? String(reply.statusCode) : undefined);
  });
}
