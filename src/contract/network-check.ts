// What a check of a way found, hop by hop, as it crosses from who tried it to who shows it.

import { z } from "zod";
import { faultReportShape } from "./shapes.ts";

export const networkChecksMax = 2000;

export const networkCheckShape = z.object({
  /** "<target>/<hop>". */
  id: z.string().max(400),
  role: z.string().max(63),
  hop: z.string().max(40),
  /** Local address, once a socket is open. */
  from: z.string().max(100).exactOptional(),
  to: z.string().max(300),
  tried: z.string().max(4000),
  answer: z.string().max(4000),
  latencyMs: z.number().nonnegative(),
  verdict: z.enum(["pass", "fail", "skipped"]),
  fault: faultReportShape.exactOptional(),
  /** What mends it: a command where there is one. */
  repair: z.string().max(4000).exactOptional(),
});
export type NetworkCheck = z.infer<typeof networkCheckShape>;
