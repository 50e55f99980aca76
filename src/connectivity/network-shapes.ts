// Schemas of what every document about a network holds: address ranges, and proxies without their passwords.

import { z } from "zod";
import { parseAddressRanges } from "./address-range.ts";

export const rangeShape = z
  .string()
  .max(64)
  .refine((text) => {
    try {
      parseAddressRanges([text]);
      return true;
    } catch {
      return false; // The refinement's message tells.
    }
  }, "not an address range such as 10.10.0.0/24");

export const proxyUrlShape = z
  .url({ protocol: /^https?$/ })
  .refine((text) => new URL(text).username === "" && new URL(text).password === "", "holds credentials; put them in credentialsFile");
