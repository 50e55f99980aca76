// Keys of stores: [a-z0-9-] segments joined by "/".

import { assert } from "../base/assert.ts";

const keyCharsMax = 512;
const keyPattern = /^[a-z0-9-]+(\/[a-z0-9-]+)*$/;
const prefixPattern = /^[a-z0-9-/]*$/;

export function isKey(text: string): boolean {
  return text.length <= keyCharsMax && keyPattern.test(text);
}

export function assertKey(key: string): void {
  if (!isKey(key)) assert(false, `${JSON.stringify(key.slice(0, 80))} is a store key`); // The text only when it is needed: this is called for each read.
}

export function assertPrefix(prefix: string): void {
  assert(prefix.length <= keyCharsMax && prefixPattern.test(prefix), `${JSON.stringify(prefix.slice(0, 80))} is a prefix of store keys`);
}
