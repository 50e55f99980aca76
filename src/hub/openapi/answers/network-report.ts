// What a check of ways answers: by its operation, and with its job.

import { z } from "zod";
import { fault, number, text, yesOrNo } from "./answer-parts.ts";

export const networkReport = z.strictObject({
  passed: yesOrNo,
  failedCount: number,
  checks: z.array(
    z.strictObject({
      id: text,
      role: text,
      hop: text,
      from: text.optional(),
      to: text,
      tried: text,
      answer: text,
      latencyMs: number,
      verdict: z.enum(["pass", "fail", "skipped"]),
      fault: fault.optional(),
      repair: text.optional(),
    }),
  ),
});
