// The words that answers are described with. Every object is closed: what is answered and not described is an error of the description.

import { z } from "zod";

/** What one resource type answers. */
export interface TypeAnswers {
  /** One resource, as GET, PUT, PATCH and each place of a list show it. */
  readonly resource: z.ZodType;
  /** By the names of its actions. "nothing": 204 without a body. A long action's is its operation's result. */
  readonly actions?: Readonly<Record<string, z.ZodType | "nothing">>;
  readonly collectionActions?: Readonly<Record<string, z.ZodType>>;
  /** Of a POST on the type itself. */
  readonly call?: z.ZodType;
}

export type AnswerTable = Readonly<Record<string, TypeAnswers>>;

export const text = z.string();
export const texts = z.array(text);
export const time = z.iso.datetime({ offset: true });
export const whole = z.number().int();
export const number = z.number();
export const yesOrNo = z.boolean();
/** A list that is always empty here. */
export const none = z.array(z.never());
export const words = z.record(text, text);
/** Members that nobody here names: what a client sent, or the evidence of a step. */
export const anything = z.record(text, z.unknown());
export const reference = z.strictObject({ id: text });
export const textsInDigits = text.regex(/^\d+$/);
export const health = z.enum(["None", "Normal", "Warning", "Critical"]);

/** A FaultReport of contract/, as it is sent. */
export const fault = z.strictObject({
  id: text,
  message: text,
  causes: texts,
  action: text,
  evidence: z.record(text, z.union([text, number, yesOrNo, texts])),
  retry: z.enum(["never", "later", "now"]),
});

/** Azure's HealthError. */
export const healthError = z.strictObject({
  errorSource: text,
  errorType: text,
  errorLevel: text,
  errorCategory: text,
  errorCode: text,
  errorId: text,
  summaryMessage: text,
  errorMessage: text,
  possibleCauses: text,
  recommendedAction: text,
  creationTimeUtc: time.optional(),
  recoveryProviderErrorMessage: text.optional(),
  entityId: text.optional(),
  customerResolvability: z.enum(["Allowed", "NotAllowed"]).optional(),
  innerHealthErrors: none.optional(),
});

const head = { id: text, name: text, type: text };
const beside = { location: text.optional(), tags: words.optional() };

/** Of a type that is made of what is seen: id, name, type, properties and what is named besides. */
export function seen(properties: z.ZodType, more: z.core.$ZodLooseShape = {}): z.ZodObject {
  return z.strictObject({ ...head, ...more, properties });
}

/** A row that has nothing but its properties. */
export function bareRow(properties: z.ZodObject): z.ZodObject {
  return seen(properties.extend({ provisioningState: text }), { etag: text });
}

/** A row of the resource table, as db/resources.ts presents it. */
export function row(properties: z.ZodObject, more: z.core.$ZodLooseShape = {}): z.ZodObject {
  return seen(properties.extend({ provisioningState: text }), { etag: text, ...beside, ...more });
}

/** A part of another row, with its own location and tags. */
export function part(properties: z.ZodType, more: z.core.$ZodLooseShape = {}): z.ZodObject {
  return seen(properties, { ...beside, ...more });
}

export const connectionState = z.strictObject({ status: text, description: text, actionsRequired: text });
export const connection = seen(
  z.strictObject({ provisioningState: text, privateEndpoint: reference, privateLinkServiceConnectionState: connectionState }),
);
export const linkResource = seen(z.strictObject({ groupId: text, requiredMembers: texts, requiredZoneNames: texts }));
export const dnsSettings = z.strictObject({
  value: z.array(z.strictObject({ name: text, address: text, range: text, member: text, resourceId: text, endpointId: text })),
  hostsLines: texts,
});
export const usage = z.strictObject({
  id: text.optional(),
  name: z.strictObject({ value: text, localizedValue: text }),
  unit: z.literal("Count"),
  currentValue: whole,
  limit: whole.optional(),
});
export const freeName = z.strictObject({ nameAvailable: yesOrNo, reason: text.optional(), message: text.optional() });
/** Any name may be asked about; a location is known when something is at it. */
export const place = z.strictObject({ ...head, properties: z.strictObject({}).optional() });
/** Of a type of which there are none here. */
export const absent = z.never();
