// The end of the set-up: what the appliance is now, and where to go on.

import { Button, makeStyles, Text, Title2, tokens } from "@fluentui/react-components";
import type { ReactNode } from "react";
import type { SetupState } from "../../contract/appliance-setup.ts";
import { FactsList } from "./facts-list.tsx";
import { useTexts } from "./language.tsx";

const useStyles = makeStyles({ page: { display: "grid", rowGap: tokens.spacingVerticalXL, maxWidth: "760px", justifyItems: "stretch" } });

export function DonePage({ state, onComponents }: { readonly state: SetupState; readonly onComponents: () => void }): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  const { registration, vcenters, machineCount } = state;
  return (
    <div className={styles.page}>
      <Title2 as="h1">{texts.done.title}</Title2>
      <Text>{texts.done.lead}</Text>
      <FactsList
        facts={[
          [texts.registration.vault, registration?.vaultResourceId ?? ""],
          [texts.registration.applianceId, registration?.applianceId ?? ""],
          [texts.done.hub, registration?.isHubReached === true ? texts.done.reached : texts.done.notReached],
          ...(vcenters.length === 0 ? [] : [["vCenter", vcenters.map(({ name, host }) => `${name} (${host})`).join(", ")] as const]),
          [texts.done.machines, String(machineCount)],
        ]}
      />
      <Text>{texts.done.next}</Text>
      <div>
        <Button appearance="primary" onClick={onComponents}>
          {texts.done.open}
        </Button>
      </div>
    </div>
  );
}
