// Step 5: every way is tried, then the key is used.

import { MessageBar, Text } from "@fluentui/react-components";
import type { ReactNode } from "react";
import { FactsList } from "./facts-list.tsx";
import { useLanguage } from "./language.tsx";
import { StepFrame, type StepPageProps } from "./step-frame.tsx";
import { toTimeText } from "./time-text.ts";

export function RegistrationPage({ setup, onNext }: StepPageProps): ReactNode {
  const { texts, language } = useLanguage();
  const { key, registration } = setup.state;
  if (registration !== undefined) {
    return (
      <StepFrame {...{ setup, onNext }} step="registration">
        <MessageBar intent="success">{texts.registration.registered}</MessageBar>
        <FactsList
          facts={[
            [texts.registration.vault, registration.vaultResourceId],
            [texts.registration.applianceId, registration.applianceId],
          ]}
        />
      </StepFrame>
    );
  }
  const run = async (): Promise<unknown> => await setup.act("register", {});
  return (
    <StepFrame {...{ setup, onNext }} step="registration" action={{ label: texts.registration.register, isReady: key !== undefined, run }}>
      {key === undefined ? undefined : (
        <FactsList
          facts={[
            [texts.registration.vault, key.vaultResourceId],
            [texts.registration.keyEnds, toTimeText(key.expiresAt, language)],
          ]}
        />
      )}
      <Text>{texts.registration.replace}</Text>
    </StepFrame>
  );
}
