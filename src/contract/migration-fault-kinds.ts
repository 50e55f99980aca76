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
  SourceWritten: row(
    409,
    5,
    "never",
    [
      "the source ran since it was fenced",
      "somebody mounted its disks: a journal that is replayed is a write",
      "these are the disks of another machine, or in another order",
    ],
    "nothing more was written; find out who wrote, and take what is worth it from there, then write the final point's disks whole (watari machine export)",
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
