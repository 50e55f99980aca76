// A fault as the appliance tells it: what went wrong, and what to do.

import { makeStyles, MessageBar, MessageBarBody, MessageBarTitle, tokens } from "@fluentui/react-components";
import type { ReactNode } from "react";
import type { FaultReport } from "../../contract/errors.ts";
import { Repair } from "./checks-view.tsx";
import { useTexts } from "./language.tsx";

const useStyles = makeStyles({
  bar: { alignItems: "start", paddingTop: tokens.spacingVerticalS, paddingBottom: tokens.spacingVerticalS },
  body: { display: "grid", rowGap: tokens.spacingVerticalXS, overflowWrap: "anywhere", whiteSpace: "normal" },
  list: { margin: 0, paddingLeft: tokens.spacingHorizontalL },
});

export function FaultView({ fault, children }: { readonly fault: FaultReport; readonly children?: ReactNode }): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  const title = texts.faults[fault.id];
  const { problems } = fault.evidence;
  return (
    <MessageBar intent="error" layout="multiline" className={styles.bar} role="alert">
      <MessageBarBody className={styles.body}>
        {title === undefined ? undefined : <MessageBarTitle>{title}</MessageBarTitle>}
        <span>{fault.message}</span>
        {Array.isArray(problems) ? (
          <ul className={styles.list}>
            {problems.map((problem: string) => (
              <li key={problem}>{problem}</li>
            ))}
          </ul>
        ) : undefined}
        <div>
          <b>{texts.repair}:</b> <Repair fault={fault} own={fault.action} />
        </div>
        {children}
      </MessageBarBody>
    </MessageBar>
  );
}
