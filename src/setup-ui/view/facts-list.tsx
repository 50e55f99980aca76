// A few facts, each with its name.

import { makeStyles, tokens } from "@fluentui/react-components";
import { Fragment, type ReactNode } from "react";

const useStyles = makeStyles({
  list: {
    ...{ display: "grid", gridTemplateColumns: "minmax(96px, max-content) minmax(0, 1fr)", columnGap: tokens.spacingHorizontalL },
    ...{ rowGap: tokens.spacingVerticalS, margin: 0, padding: tokens.spacingHorizontalM, borderRadius: tokens.borderRadiusMedium },
    ...{ border: `1px solid ${tokens.colorNeutralStroke2}`, backgroundColor: tokens.colorNeutralBackground1 },
  },
  term: { color: tokens.colorNeutralForeground3 },
  value: { margin: 0, overflowWrap: "anywhere" },
});

export function FactsList({ facts }: { readonly facts: readonly (readonly [string, ReactNode])[] }): ReactNode {
  const styles = useStyles();
  return (
    <dl className={styles.list}>
      {facts.map(([term, value]) => (
        <Fragment key={term}>
          <dt className={styles.term}>{term}</dt>
          <dd className={styles.value}>{value}</dd>
        </Fragment>
      ))}
    </dl>
  );
}

const linesStyles = makeStyles({ lines: { margin: 0, padding: 0, listStyleType: "none" } });

export function Lines({ lines }: { readonly lines: readonly string[] }): ReactNode {
  const styles = linesStyles();
  return (
    <ul className={styles.lines}>
      {lines.map((line) => (
        <li key={line}>{line}</li>
      ))}
    </ul>
  );
}
