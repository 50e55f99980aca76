// Files that a job has kept are read by a signed address.

import { z } from "zod";
import { toTimestamp } from "../../base/clock.ts";
import { Fault } from "../../contract/errors.ts";
import { listJobFiles, readJobFile } from "../db/job-files.ts";
import { defineAction, type ActionDefinition } from "../api/resource-type.ts";
import { readJob } from "../jobs/job-store.ts";
import { vaultOf } from "./names.ts";
import type { ReplicationFront } from "./world.ts";

const kind = "jobfiles";
const lifeSeconds = 3600;
const pieceBytes = 64 << 10;
const body = z.strictObject({ name: z.string().max(60) });

export function jobFileActions({ services }: Pick<ReplicationFront, "services">): Readonly<Record<string, ActionDefinition>> {
  const { db } = services.database;
  return {
    file: defineAction({
      body,
      isRead: true,
      run: async ({ id, origin }, { name }) => {
        const jobId = z.guid().safeParse(id.name.toLowerCase()).data;
        const job = jobId === undefined ? undefined : await readJob(db, jobId);
        const files = job?.scope === vaultOf(id).key ? await listJobFiles(db, job.jobId) : [];
        const file = files.find((each) => each.name === name);
        if (file === undefined)
          throw new Fault("NotFound", `could not find the file ${name} of the job`, {
            evidence: { files: files.map((each) => each.name) },
          });
        const url = await services.signedReads.addressOf({ origin, kind, name: `/${id.name.toLowerCase()}/${name}`, lifeSeconds });
        return { kind: "done", body: { ...file, url, expiresAt: toTimestamp(services.clock.nowMs() + lifeSeconds * 1000) } };
      },
    }),
  };
}

/** Without this the signed addresses of jobs' files are not served. */
export function offerJobFiles({ services }: Pick<ReplicationFront, "services">): void {
  services.signedReads.offerStream(kind, async (path, from) => {
    const [, jobId = "", name = ""] = path.split("/");
    const content = await readJobFile(services.database.db, jobId, name);
    if (content === undefined) throw new Fault("NotFound", "could not read the file: its job is gone");
    return piecesOf(content.subarray(from));
  });
}

async function* piecesOf(content: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
  for (let at = 0; at < content.length; at += pieceBytes) yield await Promise.resolve(content.subarray(at, at + pieceBytes));
}
