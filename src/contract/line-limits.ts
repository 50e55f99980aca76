// Limits of an appliance's lines: how many bytes a second may pass where and when, as operators give them and as they are shown.

import { z } from "zod";
import { countShape, machineIdShape, timestampShape } from "./shapes.ts";

/** agents: all agents to the appliance. storage: the appliance to and from the storage account. machine: one agent to the appliance. */
export const limitScopes = ["agents", "storage", "machine"] as const;
export type LimitScope = (typeof limitScopes)[number];

export const weekDays = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"] as const;
export type WeekDay = (typeof weekDays)[number];

/** Below this a single unit would take minutes. */
const limitBytesPerSecondMin = 8192;

const timeOfDayShape = z.string().regex(/^([01]\d|2[0-3]):[0-5]\d$/, "a time of day as HH:MM, 00:00 to 23:59");

/** On these days between these times of the site's time zone. `until` at or before `from` is on the next day; the days are those of `from`. */
export const limitWindowShape = z.object({
  days: z.array(z.enum(weekDays)).min(1).max(7),
  from: timeOfDayShape,
  until: timeOfDayShape,
});
export type LimitWindow = z.infer<typeof limitWindowShape>;

export const limitPlaceShape = z.object({
  scope: z.enum(limitScopes),
  /** With the scope machine, and only then. */
  machineId: machineIdShape.exactOptional(),
  /** Without one the limit is always in force, but for the hours of one that has a window. */
  window: limitWindowShape.exactOptional(),
});
export type LimitPlace = z.infer<typeof limitPlaceShape>;

const isPlaced = ({ scope, machineId }: LimitPlace): boolean => (scope === "machine") === (machineId !== undefined);
const placedProblem = { error: "a machine belongs to the scope machine, and only to it" };

export const lineLimitShape = limitPlaceShape
  .extend({ bytesPerSecond: z.union([z.number().int().min(limitBytesPerSecondMin).max(1e12), z.literal("unlimited")]) })
  .refine(isPlaced, placedProblem);
export type LineLimit = z.infer<typeof lineLimitShape>;

export const lineLimitsShape = z.object({
  /** IANA name; that of the appliance's system unless given. */
  timeZone: z.string().max(64).exactOptional(),
  limits: z.array(lineLimitShape).max(512),
});
export type LineLimits = z.infer<typeof lineLimitsShape>;

/** A change of the limits: removed first, then set. Setting one of the same place replaces it. */
export const limitsChangeShape = z.object({
  timeZone: z.string().max(64).exactOptional(),
  remove: z.array(limitPlaceShape.refine(isPlaced, placedProblem)).max(512).default([]),
  set: z.array(lineLimitShape).max(512).default([]),
});
export type LimitsChange = z.output<typeof limitsChangeShape>;

/** What holds on a line now, and what passed it. */
export const lineStateShape = z.object({
  scope: z.enum(limitScopes),
  machineId: machineIdShape.exactOptional(),
  /** Absent: unlimited. */
  bytesPerSecond: z.number().exactOptional(),
  /** Why this and no other. */
  reason: z.string().max(400),
  /** When another limit comes into force. */
  untilTime: timestampShape.exactOptional(),
  /** Measured on the wire over the last minute. */
  measuredBytesPerSecond: z.number().nonnegative(),
  /** Since the appliance's start. */
  passedBytes: countShape,
  /** Share of the last minute in which something waited for the limit. */
  waitedShare: z.number().min(0).max(1),
});
export type LineState = z.infer<typeof lineStateShape>;

export const limitsStateShape = z.object({ timeZone: z.string(), limits: z.array(lineLimitShape), lines: z.array(lineStateShape) });
export type LimitsState = z.infer<typeof limitsStateShape>;
