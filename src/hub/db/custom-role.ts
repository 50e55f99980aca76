// A custom role as it is stored and as its maker gives it.

import { z } from "zod";

const patternsMax = 500;
const patternsShape = z
  .array(
    z
      .string()
      .min(1)
      .max(300)
      .regex(/^[A-Za-z0-9.*/_-]+$/, "letters, digits, dot, slash, dash, underscore and *"),
  )
  .max(patternsMax)
  .default([]);

export const storedRoleShape = z.strictObject({
  roleName: z.string().min(1).max(512),
  description: z.string().max(2048).default(""),
  type: z.string().max(64).optional(),
  permissions: z
    .array(z.strictObject({ actions: patternsShape, notActions: patternsShape, dataActions: patternsShape, notDataActions: patternsShape }))
    .max(20),
  assignableScopes: z.array(z.string().max(2048)).min(1).max(100),
});
