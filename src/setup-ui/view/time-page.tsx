// Step 4: this machine's clock beside the hub's.

import type { ReactNode } from "react";
import { FactsList } from "./facts-list.tsx";
import { useTexts } from "./language.tsx";
import { StepFrame, type StepPageProps } from "./step-frame.tsx";
import { toUniversalText } from "./time-text.ts";

export function TimePage({ setup, onNext }: StepPageProps): ReactNode {
  const texts = useTexts();
  const { now, isSynchronised } = setup.state.time;
  const kept = isSynchronised === undefined ? texts.time.unknown : isSynchronised ? texts.time.synchronised : texts.time.notSynchronised;
  return (
    <StepFrame
      {...{ setup, onNext }}
      step="time"
      action={{ label: texts.time.check, isReady: true, run: async () => await setup.act("checkTime", {}) }}
    >
      <FactsList
        facts={[
          [texts.time.now, toUniversalText(now)],
          [texts.hops["time server"] ?? "", kept],
        ]}
      />
    </StepFrame>
  );
}
