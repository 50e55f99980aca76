// Reads what stands at a signed address, through the connector, no more than was asked for.

import type { Connector } from "../../connectivity/connector.ts";
import { Fault } from "../../contract/errors.ts";

const secondsMax = 30;

/** Answers the newest bytes of what is longer than bytesMax; undefined for what is not there. */
export function createFetch(connector: Pick<Connector, "fetch">): (address: string, bytesMax: number) => Promise<Uint8Array | undefined> {
  return async (address, bytesMax) => {
    const answer = await connector.fetch(address, { signal: AbortSignal.timeout(secondsMax * 1000), redirect: "error" });
    if (answer.status === 404) {
      await answer.body?.cancel();
      return undefined;
    }
    if (!answer.ok || answer.body === null) {
      await answer.body?.cancel();
      throw new Fault("LandingFailed", "could not read what the machine's console shows", { evidence: { status: answer.status } });
    }
    let kept = Buffer.alloc(0);
    for await (const chunk of answer.body) kept = Buffer.concat([kept, Buffer.from(chunk)]).subarray(-bytesMax);
    return kept;
  };
}
