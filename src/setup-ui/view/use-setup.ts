// The set-up as this browser sees it: the state that the appliance told last, and actions that renew it.

import { useCallback, useEffect, useState } from "react";
import type { SetupRequest, SetupRoute, SetupResponse, SetupState } from "../../contract/appliance-setup.ts";
import type { FaultReport } from "../../contract/errors.ts";
import { call, Refused } from "./api.ts";

type StateRoute = { [Route in SetupRoute]: SetupResponse<Route> extends SetupState ? Route : never }[SetupRoute];

export interface Setup {
  readonly state: SetupState;
  readonly isBusy: boolean;
  /** Of the last action, until the next. */
  readonly fault: FaultReport | undefined;
  readonly clearFault: () => void;
  /** Answers the new state; undefined when it was refused, and then `fault` says why. */
  readonly act: <Route extends StateRoute>(route: Route, body: SetupRequest<Route>) => Promise<SetupState | undefined>;
}

export function useSetup(onSignedOut: () => void): Omit<Setup, "state"> & { readonly state: SetupState | undefined } {
  const [state, setState] = useState<SetupState | undefined>();
  const [isBusy, setBusy] = useState(false);
  const [fault, setFault] = useState<FaultReport | undefined>();
  const act: Setup["act"] = useCallback(
    async (route, body) => {
      setBusy(true);
      setFault(undefined);
      try {
        const answer = (await call(route, body)) as SetupState; // The routes are those that answer it.
        setState(answer);
        return answer;
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        if (error.fault.id === "Unauthorized") onSignedOut();
        setFault(error.fault);
        return undefined;
      } finally {
        setBusy(false);
      }
    },
    [onSignedOut],
  );
  useEffect(() => {
    void act("state", {});
  }, [act]);
  const clearFault = useCallback(() => setFault(undefined), []);
  return { state, isBusy, fault, clearFault, act };
}
