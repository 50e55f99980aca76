// Traces over OTLP/HTTP by the OpenTelemetry SDK: spans are sent in batches, bounded in memory and in time, and dropped rather than waited for.

import { AsyncLocalStorage } from "node:async_hooks";
import { readFile } from "node:fs/promises";
import {
  defaultTextMapGetter,
  defaultTextMapSetter,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  trace,
  type Context,
} from "@opentelemetry/api";
import { ExportResultCode, W3CTraceContextPropagator } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { detectResources, envDetector, resourceFromAttributes, serviceNameEnvDetector } from "@opentelemetry/resources";
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  TracerProvider,
  type SpanExporter,
} from "@opentelemetry/sdk-trace";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { SpanWish, TraceAttributes, Traces, TraceSpan } from "./traces.ts";
import type { TracesConfig } from "./traces-config.ts";

const queuedMax = 4096;
const batchMax = 512;
const delayMs = 2000;
const exportMsMax = 5000;
const textCharactersMax = 512;
const attributesMax = 32;

const kinds = { server: SpanKind.SERVER, client: SpanKind.CLIENT, producer: SpanKind.PRODUCER, internal: SpanKind.INTERNAL } as const;

interface Dependencies {
  readonly config: TracesConfig;
  readonly clock: Clock;
  readonly log: Log;
  /** Tells this hub from others of its database. */
  readonly instanceId: string;
}

/** What the configuration leaves out comes from the standard OTEL_* variables, as the SDK reads them. */
export async function openTraces({ config, clock, log, instanceId }: Dependencies): Promise<Traces> {
  const { endpoint, caFile, sampleRatio } = config;
  const ca = caFile === undefined ? undefined : await readFile(caFile, "utf8");
  const exporter = new OTLPTraceExporter({
    ...(endpoint === undefined ? {} : { url: endpoint }),
    ...(ca === undefined ? {} : { httpAgentOptions: { ca, keepAlive: true } }),
    timeoutMillis: exportMsMax,
  });
  const own = resourceFromAttributes({ "service.name": "watari-hub", "service.instance.id": instanceId });
  const provider = new TracerProvider({
    resource: own.merge(detectResources({ detectors: [envDetector, serviceNameEnvDetector] })),
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(sampleRatio) }),
    spanLimits: { attributeValueLengthLimit: textCharactersMax, attributeCountLimit: attributesMax },
    spanProcessors: [
      new BatchSpanProcessor({
        exporter: telling(exporter, { clock, log }),
        ...{ maxQueueSize: queuedMax, maxExportBatchSize: batchMax, scheduledDelayMillis: delayMs, exportTimeoutMillis: exportMsMax },
      }),
    ],
  });
  const tracer = provider.getTracer("watari-hub");
  const propagator = new W3CTraceContextPropagator();
  const underWay = new AsyncLocalStorage<OpenSpan>();
  const start = ({ name, kind, from, attributes }: SpanWish): OpenSpan => {
    const parent =
      from === undefined
        ? (underWay.getStore()?.context ?? ROOT_CONTEXT)
        : propagator.extract(ROOT_CONTEXT, { ...from }, defaultTextMapGetter);
    const span = tracer.startSpan(name, { kind: kinds[kind], attributes: { ...attributes } }, parent);
    const context = trace.setSpan(parent, span);
    const carrier: Record<string, string> = {};
    propagator.inject(context, carrier, defaultTextMapSetter);
    const opened: OpenSpan = {
      context,
      traceparent: carrier["traceparent"],
      set: (more: TraceAttributes) => void span.setAttributes({ ...more }),
      rename: (to) => void span.updateName(to),
      end: (fault) => {
        if (!span.isRecording()) return;
        if (fault !== undefined) span.setStatus({ code: SpanStatusCode.ERROR, message: fault }).setAttribute("error.type", fault);
        span.end();
      },
      run: (task) => underWay.run(opened, task),
    };
    return opened;
  };
  log.info("traces sent", { endpoint: endpoint ?? "from OTEL_EXPORTER_OTLP_*", sampleRatio });
  return {
    isOn: true,
    start,
    current: () => underWay.getStore(),
    [Symbol.asyncDispose]: async () => {
      // What cannot be sent at the end is lost: a collector that is away must not keep a hub from stopping.
      await provider.shutdown().catch((error: unknown) => log.warn("traces not sent at the end", { reason: String(error) }));
    },
  };
}

interface OpenSpan extends TraceSpan {
  readonly context: Context;
}

const toldIntervalMs = 60_000;
const succeeded: number = ExportResultCode.SUCCESS;

/** A collector that is away is told now and then, never for each batch. */
function telling(exporter: SpanExporter, { clock, log }: { readonly clock: Clock; readonly log: Log }): SpanExporter {
  let lost = 0;
  let toldAtMs = Number.NEGATIVE_INFINITY;
  return {
    export: (spans, told) =>
      exporter.export(spans, (result) => {
        const code: number = result.code; // Of the exporter's own copy of the library.
        if (code !== succeeded) {
          lost += spans.length;
          if (clock.monotonicMs() - toldAtMs >= toldIntervalMs) {
            toldAtMs = clock.monotonicMs();
            log.warn("traces not sent", { spans: lost, reason: result.error?.message });
            lost = 0;
          }
        }
        told(result);
      }),
    forceFlush: async () => await exporter.forceFlush?.(),
    shutdown: async () => await exporter.shutdown(),
  };
}
