// Step 8: everything once more; when it passes, the appliance is ready.

import type { ReactNode } from "react";
import { useTexts } from "./language.tsx";
import { StepFrame, type StepPageProps } from "./step-frame.tsx";

export function CheckPage({ setup, onNext }: StepPageProps): ReactNode {
  const texts = useTexts();
  const run = async (): Promise<unknown> => await setup.act("checkAll", {});
  return <StepFrame {...{ setup, onNext }} step="check" action={{ label: texts.check.start, isReady: true, run }} />;
}
