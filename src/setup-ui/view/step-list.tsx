// The steps in their order: those that are settled and the next one can be opened, the others cannot be chosen at all.

import { makeStyles, mergeClasses, Text, tokens } from "@fluentui/react-components";
import type { ReactNode } from "react";
import type { SetupState } from "../../contract/appliance-setup.ts";
import { PassIcon } from "./icons.tsx";
import { useTexts } from "./language.tsx";
import type { Place } from "./shell-view.tsx";

const useStyles = makeStyles({
  list: { listStyleType: "none", margin: 0, padding: 0, display: "grid", rowGap: "2px" },
  item: {
    ...{
      display: "flex",
      alignItems: "center",
      columnGap: tokens.spacingHorizontalM,
      width: "100%",
      textAlign: "left",
      border: "none",
      boxSizing: "border-box",
    },
    ...{
      padding: "8px 12px",
      borderRadius: tokens.borderRadiusMedium,
      backgroundColor: "transparent",
      color: tokens.colorNeutralForeground1,
    },
    ...{ fontFamily: "inherit", fontSize: tokens.fontSizeBase300, cursor: "pointer" },
    ":hover": { backgroundColor: tokens.colorNeutralBackground2Hover },
    ":focus-visible": { outline: `2px solid ${tokens.colorStrokeFocus2}` },
  },
  later: { color: tokens.colorNeutralForegroundDisabled, cursor: "default", ":hover": { backgroundColor: "transparent" } },
  open: { backgroundColor: tokens.colorNeutralBackground1Selected, fontWeight: tokens.fontWeightSemibold },
  sign: {
    width: "20px",
    height: "20px",
    display: "inline-grid",
    placeItems: "center",
    flexShrink: 0,
    borderRadius: "50%",
    boxSizing: "border-box",
  },
  number: { border: `1px solid ${tokens.colorNeutralStroke1}`, fontSize: tokens.fontSizeBase200, lineHeight: "18px" },
  next: { border: "none", backgroundColor: tokens.colorBrandBackground, color: tokens.colorNeutralForegroundOnBrand, lineHeight: "20px" },
  done: { color: tokens.colorPaletteGreenForeground1 },
  divider: { borderTop: `1px solid ${tokens.colorNeutralStroke2}`, margin: `${tokens.spacingVerticalM} 0` },
});

interface StepListProps {
  readonly state: SetupState;
  readonly place: Place;
  readonly onOpen: (place: Place) => void;
}

export function StepList({ state, place, onOpen }: StepListProps): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  return (
    <nav aria-label={texts.stepsLabel}>
      <ol className={styles.list}>
        {state.steps.map(({ step, status }, index) => (
          <li key={step} data-step={step} data-status={status}>
            {status === "later" ? (
              <span className={mergeClasses(styles.item, styles.later)}>
                <span className={mergeClasses(styles.sign, styles.number)}>{index + 1}</span>
                {texts.steps[step].name}
              </span>
            ) : (
              <button
                type="button"
                className={mergeClasses(styles.item, place === step && styles.open)}
                aria-current={place === step ? "step" : undefined}
                onClick={() => onOpen(step)}
              >
                <span className={mergeClasses(styles.sign, status === "done" ? styles.done : mergeClasses(styles.number, styles.next))}>
                  {status === "done" ? <PassIcon /> : index + 1}
                </span>
                {texts.steps[step].name}
              </button>
            )}
          </li>
        ))}
      </ol>
      <div className={styles.divider} />
      <button
        type="button"
        className={mergeClasses(styles.item, place === "components" && styles.open)}
        aria-current={place === "components" ? "page" : undefined}
        onClick={() => onOpen("components")}
      >
        <Text>{texts.components}</Text>
      </button>
    </nav>
  );
}
