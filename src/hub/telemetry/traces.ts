// Traces as the hub's parts see them: spans that know their parent by W3C trace context, and nothing of who collects them.

import { Fault } from "../../contract/errors.ts";

export type TraceValue = string | number | boolean | undefined;
export type TraceAttributes = Readonly<Record<string, TraceValue>>;

/** As it crosses process edges, in a header or a row. */
export interface TraceOrigin {
  readonly traceparent?: string | undefined;
  readonly tracestate?: string | undefined;
}

export interface SpanWish {
  readonly name: string;
  readonly kind: "server" | "client" | "producer" | "internal";
  /** Absent: the work under way is the parent. */
  readonly from?: TraceOrigin | undefined;
  /** Never a secret, never a body. */
  readonly attributes: TraceAttributes;
}

export interface TraceSpan {
  /** To hand on. Undefined where nobody traces. */
  readonly traceparent: string | undefined;
  set(attributes: TraceAttributes): void;
  rename(name: string): void;
  /** A fault's code, where it went wrong. Ending twice is fine. */
  end(fault?: string): void;
  /** What `task` does and awaits has this span as its parent. */
  run<T>(task: () => T): T;
}

export interface Traces extends AsyncDisposable {
  readonly isOn: boolean;
  start(wish: SpanWish): TraceSpan;
  /** The span of the work under way. */
  current(): TraceSpan | undefined;
}

const noSpan: TraceSpan = {
  traceparent: undefined,
  set: () => undefined,
  rename: () => undefined,
  end: () => undefined,
  run: (task) => task(),
};

/** Traces nothing and costs nothing. */
export const noTraces: Traces = {
  isOn: false,
  start: () => noSpan,
  current: () => undefined,
  [Symbol.asyncDispose]: async () => undefined,
};

/** Runs `task` in a span of its own, which ends with it and tells the fault that it throws. */
export async function inSpan<T>(traces: Traces, wish: SpanWish, task: (span: TraceSpan) => Promise<T>): Promise<T> {
  if (!traces.isOn) return await task(noSpan);
  const span = traces.start(wish);
  try {
    const result = await span.run(async () => await task(span));
    span.end();
    return result;
  } catch (error) {
    span.end(error instanceof Fault ? error.code : error instanceof Error ? error.name : "unknown");
    throw error;
  }
}
