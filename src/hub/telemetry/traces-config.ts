// Where traces go: nowhere without this section of hub.yaml.

import { z } from "zod";

export const tracesConfigShape = z.strictObject({
  /** Of an OTLP/HTTP collector, whole: "https://collector.example.test:4318/v1/traces". Absent: as OTEL_EXPORTER_OTLP_* say. */
  endpoint: z
    .url({ protocol: /^https?$/ })
    .max(2000)
    .optional(),
  /** Trusted for the collector in place of the system's authorities. */
  caFile: z.string().min(1).max(4096).optional(),
  /** Share of the requests that are traced when the caller decides nothing. */
  sampleRatio: z.number().min(0).max(1).default(1),
});

export type TracesConfig = z.infer<typeof tracesConfigShape>;
