// Refusals in the words of the blob service: status, error code, and the XML body that clients read.

import { escapeXml } from "./xml.ts";

const statusOf = {
  InvalidUri: 400,
  InvalidHeaderValue: 400,
  InvalidQueryParameterValue: 400,
  Md5Mismatch: 400,
  OutOfRangeInput: 400,
  AuthenticationFailed: 403,
  AuthorizationPermissionMismatch: 403,
  ContainerNotFound: 404,
  BlobNotFound: 404,
  ResourceNotFound: 404,
  UnsupportedHttpVerb: 405,
  ContainerAlreadyExists: 409,
  BlobAlreadyExists: 409,
  MissingContentLengthHeader: 411,
  ConditionNotMet: 412,
  RequestBodyTooLarge: 413,
  InvalidRange: 416,
  InvalidPageRange: 416,
  InternalError: 500,
  NotImplemented: 501,
  ServerBusy: 503,
} as const;
export type BlobErrorCode = keyof typeof statusOf;

/** Thrown by handlers; the listener turns it into the answer. */
export class BlobError extends Error {
  readonly code: BlobErrorCode;

  constructor(code: BlobErrorCode, message: string, options: { readonly cause?: unknown } = {}) {
    super(message, options);
    this.name = "BlobError";
    this.code = code;
  }

  get status(): number {
    return statusOf[this.code];
  }

  toXml(): string {
    return `<?xml version="1.0" encoding="utf-8"?><Error><Code>${this.code}</Code><Message>${escapeXml(this.message)}</Message></Error>`;
  }
}
