// What every step's page has: where one is, what it is for, its form, what failed, and one way on.

import { Button, makeStyles, Spinner, Text, Title2, tokens } from "@fluentui/react-components";
import type { ReactNode } from "react";
import { setupSteps, type SetupStep } from "../../contract/setup-steps.ts";
import { ChecksView } from "./checks-view.tsx";
import { FaultView } from "./fault-view.tsx";
import { useTexts } from "./language.tsx";
import type { Setup } from "./use-setup.ts";

const useStyles = makeStyles({
  page: { display: "grid", rowGap: tokens.spacingVerticalXL, maxWidth: "760px", gridTemplateColumns: "minmax(0, 1fr)" },
  head: { display: "grid", rowGap: tokens.spacingVerticalS },
  place: { color: tokens.colorNeutralForeground3 },
  lead: { color: tokens.colorNeutralForeground2 },
  form: { display: "grid", rowGap: tokens.spacingVerticalL, gridTemplateColumns: "minmax(0, 1fr)" },
  actions: {
    display: "flex",
    alignItems: "center",
    flexWrap: "wrap",
    columnGap: tokens.spacingHorizontalM,
    rowGap: tokens.spacingVerticalS,
  },
});

export interface StepPageProps {
  readonly setup: Setup;
  readonly onNext: () => void;
}

export interface StepFrameProps extends StepPageProps {
  readonly step: SetupStep;
  readonly children?: ReactNode;
  /** What the main button does. */
  readonly action?: {
    readonly label: string;
    readonly busyLabel?: string;
    readonly isReady: boolean;
    readonly run: () => Promise<unknown>;
  };
  readonly isFaultShown?: boolean;
  /** Another way on, less likely. */
  readonly secondary?: ReactNode;
}

export function StepFrame({ setup, onNext, step, children, action, secondary, isFaultShown = true }: StepFrameProps): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  const { title, lead } = texts.steps[step];
  const own = setup.state.steps.find((each) => each.step === step);
  const isDone = own?.status === "done";
  return (
    <form
      className={styles.page}
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (action?.isReady === true && !setup.isBusy) void action.run();
      }}
    >
      <div className={styles.head}>
        <Text size={200} className={styles.place}>
          {texts.stepOf(setupSteps.indexOf(step) + 1, setupSteps.length)}
        </Text>
        <Title2 as="h1">{title}</Title2>
        <Text className={styles.lead}>{lead}</Text>
      </div>
      <div className={styles.form}>{children}</div>
      {setup.fault === undefined || !isFaultShown ? undefined : <FaultView fault={setup.fault} />}
      <div className={styles.actions}>
        {action === undefined ? undefined : (
          <Button type="submit" appearance={isDone ? "secondary" : "primary"} disabled={!action.isReady || setup.isBusy}>
            {setup.isBusy ? (action.busyLabel ?? texts.checking) : action.label}
          </Button>
        )}
        {isDone ? (
          <Button appearance="primary" disabled={setup.isBusy} onClick={onNext}>
            {texts.next}
          </Button>
        ) : undefined}
        {secondary}
        {setup.isBusy ? <Spinner size="tiny" /> : undefined}
      </div>
      {own?.result === undefined || setup.isBusy ? undefined : <ChecksView result={own.result} />}
    </form>
  );
}
