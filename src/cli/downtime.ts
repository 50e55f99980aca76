// The predicted downtime of a cut-over in words: before it is ordered, and beside what it came to.

import { z } from "zod";
import type { ArmClient } from "./arm-client.ts";
import { formatSeconds } from "./output.ts";

const predictionShape = z.looseObject({
  seconds: z.number(),
  lowSeconds: z.number(),
  highSeconds: z.number(),
  confidence: z.enum(["high", "medium", "low"]),
  parts: z.array(
    z.looseObject({ name: z.string(), seconds: z.number(), basis: z.enum(["own", "others", "assumed"]), sampleCount: z.number() }),
  ),
});
export type Prediction = z.infer<typeof predictionShape>;

export const comparisonShape = z.looseObject({
  actualSeconds: z.number(),
  predictedSeconds: z.number(),
  differencePercent: z.number(),
  isWithinRange: z.boolean(),
});

export async function askPrediction(arm: ArmClient, itemId: string): Promise<Prediction> {
  return predictionShape.parse(await arm.change("POST", `${itemId}/predictDowntime`, {}));
}

const meanings = {
  high: "measured of this machine",
  medium: "partly measured of other machines",
  low: "partly assumed: a rehearsal would tell",
};
const bases = { own: "its own", others: "others'", assumed: "assumed" };

/** Lines, the first of which says it all. */
export function predictionText({ seconds, lowSeconds, highSeconds, confidence, parts }: Prediction): readonly string[] {
  return [
    `predicted downtime ${formatSeconds(seconds)}, likely ${formatSeconds(lowSeconds)} to ${formatSeconds(highSeconds)}; confidence ${confidence} (${meanings[confidence]})`,
    parts.map((part) => `${part.name} ${formatSeconds(part.seconds)} (${bases[part.basis]})`).join(", "),
  ];
}

export function comparisonText({
  actualSeconds,
  predictedSeconds,
  differencePercent,
  isWithinRange,
}: z.infer<typeof comparisonShape>): string {
  const sign = differencePercent > 0 ? "+" : "";
  return `downtime ${formatSeconds(actualSeconds)}; predicted were ${formatSeconds(predictedSeconds)} (${sign}${differencePercent} %, ${isWithinRange ? "within" : "outside"} the range)`;
}
