// The rows of the table of faults that only migrations and their reports know.

import { row, type FaultKind } from "./fault-kind.ts";

export const migrationFaultKinds = {
  SignatureInvalid: row(
    400,
    5,
    "never",
    [
      "the file was changed after it was signed",
      "another hub signed it",
      "the certificate that it is checked with is not that hub's authority",
    ],
    "fetch the document from its hub again, and check it with that hub's authority certificate",
  ),
  UpgradeFailed: row(
    502,
    5,
    "never",
    [
      "a package's own scripts failed",
      "the guest has too little room, or packages that are held",
      "the upgrade disk was not made for this machine",
    ],
    "read what the guest said in the evidence and /var/log/watari-os-upgrade.log of a test machine; the source is as it was",
  ),
} satisfies Record<string, FaultKind>;
