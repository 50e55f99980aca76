// One SOAP call to a vCenter: envelope out, XML in, faults told apart; answers are bounded and decoded by schemas.

import { XMLParser } from "fast-xml-parser";
import { request, type Dispatcher } from "undici";
import { z } from "zod";
import { Fault } from "../../contract/errors.ts";

const answerBytesMax = 64 << 20;
const callTimeoutMs = 60_000;

/** Elements that may come once or many times; the parser always gives lists for them. */
const listElements = new Set([
  "returnval.objects",
  "objects.propSet",
  "val.VirtualDevice",
  "val.GuestNicInfo",
  "GuestNicInfo.ipAddress",
  "val.ManagedObjectReference",
  "returnval.propSet",
]);

const parser = new XMLParser({
  ignoreAttributes: false,
  attributeNamePrefix: "@",
  textNodeName: "#text",
  removeNSPrefix: true,
  parseTagValue: false,
  parseAttributeValue: false,
  isArray: (_name, path) => listElements.has(String(path).split(".").slice(-2).join(".")),
});

/** A managed object: its kind and its name inside the vCenter. */
export interface ManagedObject {
  readonly type: string;
  readonly id: string;
}

export const textShape = z.union([z.string(), z.object({ "#text": z.string() }).transform((node) => node["#text"])]);
export const referenceShape = z
  .object({ "#text": z.string(), "@type": z.string() })
  .transform((node): ManagedObject => ({ type: node["@type"], id: node["#text"] }));

export interface SoapCall {
  readonly method: string;
  readonly on: ManagedObject;
  /** XML of the arguments, made with `escapeXml` and `referenceXml`. */
  readonly body: string;
}

export interface SoapAnswer {
  /** Content of the method's response element. */
  readonly body: unknown;
  readonly cookie: string | undefined;
}

/** What the vCenter refused, by its fault's type name, such as "InvalidLogin" or "NotAuthenticated". */
export class SoapFault extends Error {
  readonly faultName: string;
  constructor(faultName: string, message: string) {
    super(message);
    this.name = "SoapFault";
    this.faultName = faultName;
  }
}

export interface SoapClient {
  call(call: SoapCall, cookie: string | undefined, signal?: AbortSignal): Promise<SoapAnswer>;
}

export function createSoapClient(options: { readonly url: string; readonly dispatcher: Dispatcher }): SoapClient {
  return {
    call: async (call, cookie, signal) => {
      const deadline = AbortSignal.timeout(callTimeoutMs);
      const response = await request(options.url, {
        method: "POST",
        dispatcher: options.dispatcher,
        headers: {
          "content-type": "text/xml; charset=utf-8",
          soapaction: "urn:vim25/6.5",
          ...(cookie === undefined ? {} : { cookie }),
        },
        body: envelope(call),
        signal: signal === undefined ? deadline : AbortSignal.any([signal, deadline]),
      });
      const text = await readBounded(response.body, call.method);
      const setCookie = [response.headers["set-cookie"] ?? []].flat()[0]?.split(";", 1)[0];
      return { body: openEnvelope(text, call.method, response.statusCode), cookie: setCookie ?? cookie };
    },
  };
}

async function readBounded(body: AsyncIterable<unknown>, method: string): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    const part = Buffer.from(chunk as Uint8Array); // undici gives bytes.
    bytes += part.length;
    if (bytes > answerBytesMax)
      throw new Fault("VcenterRefused", `the vCenter's answer to ${method} is too large`, { evidence: { answerBytesMax } });
    chunks.push(part);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function envelope({ method, on, body }: SoapCall): string {
  return (
    `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" ` +
    `xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema"><soapenv:Body>` +
    `<${method} xmlns="urn:vim25">${referenceXml("_this", on)}${body}</${method}></soapenv:Body></soapenv:Envelope>`
  );
}

const envelopeShape = z.object({ Envelope: z.object({ Body: z.record(z.string(), z.unknown()) }) });
const faultShape = z.object({ faultstring: textShape.optional(), detail: z.record(z.string(), z.unknown()).optional() });

function openEnvelope(text: string, method: string, status: number): unknown {
  const parsed = envelopeShape.safeParse(parseXml(text, method));
  if (!parsed.success) {
    throw new Fault("VcenterRefused", `the vCenter's answer to ${method} is not SOAP`, { evidence: { method, status } });
  }
  const body = parsed.data.Envelope.Body;
  const fault = faultShape.safeParse(body["Fault"]);
  if (body["Fault"] !== undefined && fault.success) {
    const names = Object.keys(fault.data.detail ?? {}).filter((name) => !name.startsWith("@"));
    throw new SoapFault((names[0] ?? "Unknown").replace(/Fault$/, ""), fault.data.faultstring ?? "no reason given");
  }
  return body[`${method}Response`];
}

function parseXml(text: string, method: string): unknown {
  try {
    return parser.parse(text);
  } catch (error) {
    throw new Fault("VcenterRefused", `the vCenter's answer to ${method} is not XML`, { evidence: { method }, cause: error });
  }
}

export function referenceXml(element: string, object: ManagedObject): string {
  return `<${element} type="${escapeXml(object.type)}">${escapeXml(object.id)}</${element}>`;
}

export function escapeXml(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}

/** Decodes a part of an answer. Throws Fault VcenterRefused that names the fields. */
export function decodeAnswer<T>(shape: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = shape.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.slice(0, 10).map((issue) => `${issue.path.join(".")}: ${issue.message}`);
  throw new Fault("VcenterRefused", `could not understand the vCenter's ${what}`, { evidence: { problems } });
}
