// What a step's last try found: each target once, with the hop that failed and its repair; every hop on demand.

import { Accordion, AccordionHeader, AccordionItem, AccordionPanel, makeStyles, Text, tokens } from "@fluentui/react-components";
import type { ReactNode } from "react";
import type { NetworkCheck } from "../../contract/network-check.ts";
import type { SetupStepResult } from "../../contract/appliance-setup.ts";
import { FailIcon, PassIcon, SkippedIcon } from "./icons.tsx";
import { useLanguage, useTexts } from "./language.tsx";
import { toTimeText } from "./time-text.ts";

const useStyles = makeStyles({
  box: {
    border: `1px solid ${tokens.colorNeutralStroke2}`,
    borderRadius: tokens.borderRadiusMedium,
    backgroundColor: tokens.colorNeutralBackground1,
  },
  head: {
    display: "flex",
    alignItems: "center",
    columnGap: tokens.spacingHorizontalS,
    padding: tokens.spacingHorizontalM,
    flexWrap: "wrap",
  },
  when: { color: tokens.colorNeutralForeground3, marginLeft: "auto" },
  target: { display: "flex", alignItems: "center", columnGap: tokens.spacingHorizontalS, minWidth: 0, overflowWrap: "anywhere" },
  pass: { color: tokens.colorPaletteGreenForeground1, display: "inline-flex", flexShrink: 0 },
  fail: { color: tokens.colorPaletteRedForeground1, display: "inline-flex", flexShrink: 0 },
  skipped: { color: tokens.colorNeutralForeground3, display: "inline-flex", flexShrink: 0 },
  finding: {
    ...{ display: "grid", gridTemplateColumns: "max-content 1fr", columnGap: tokens.spacingHorizontalM, rowGap: tokens.spacingVerticalXS },
    ...{ margin: `0 0 ${tokens.spacingVerticalM} 52px`, paddingRight: tokens.spacingHorizontalM },
  },
  term: { color: tokens.colorNeutralForeground3 },
  value: { margin: 0, overflowWrap: "anywhere" },
  hop: {
    display: "grid",
    gridTemplateColumns: "20px minmax(110px, max-content) 1fr max-content",
    columnGap: tokens.spacingHorizontalS,
    padding: "4px 0",
  },
  words: { overflowWrap: "anywhere", minWidth: 0 },
  quiet: { color: tokens.colorNeutralForeground3 },
  divided: { borderTop: `1px solid ${tokens.colorNeutralStroke3}` },
});

export function ChecksView({ result }: { readonly result: SetupStepResult }): ReactNode {
  const styles = useStyles();
  const { texts, language } = useLanguage();
  const failedCount = result.checks.filter(({ verdict }) => verdict === "fail").length;
  const words = failedCount > 0 ? texts.someFailed(failedCount) : result.checks.length === 0 ? texts.nothingToCheck : texts.allPassed;
  const targets = Map.groupBy(result.checks, ({ id }) => id.slice(0, id.lastIndexOf("/")));
  return (
    <section className={styles.box} aria-label={texts.details} data-failed={failedCount}>
      <div className={styles.head} role="status">
        <span className={failedCount === 0 ? styles.pass : styles.fail}>{failedCount === 0 ? <PassIcon /> : <FailIcon />}</span>
        <Text weight="semibold">{words}</Text>
        <Text size={200} className={styles.when}>
          {texts.lastChecked(toTimeText(result.at, language))}
        </Text>
      </div>
      <Accordion multiple collapsible>
        {[...targets].map(([target, checks]) => (
          <TargetView key={target} target={target} checks={checks} />
        ))}
      </Accordion>
    </section>
  );
}

function TargetView({ target, checks }: { readonly target: string; readonly checks: readonly NetworkCheck[] }): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  const failed = checks.find(({ verdict }) => verdict === "fail");
  const verdict = failed?.verdict ?? (checks.some((check) => check.verdict === "pass") ? "pass" : "skipped");
  return (
    <AccordionItem value={target} className={styles.divided} data-target={target} data-verdict={verdict}>
      <AccordionHeader expandIconPosition="end">
        <span className={styles.target}>
          <VerdictIcon verdict={verdict} />
          <span>
            {target} <Text className={styles.quiet}>{nameOf(checks)}</Text>
          </span>
        </span>
      </AccordionHeader>
      {failed === undefined ? undefined : <Finding check={failed} />}
      <AccordionPanel>
        {checks.map((check) => (
          <div key={check.id} className={styles.hop}>
            <VerdictIcon verdict={check.verdict} />
            <Text>{texts.hops[check.hop] ?? check.hop}</Text>
            <span className={styles.words}>
              <Text block className={styles.quiet} size={200}>
                {check.tried}
              </Text>
              <Text block>{check.answer}</Text>
              {Object.entries(check.fault?.evidence ?? {}).map(([name, value]) => (
                <Text key={name} block size={200} className={styles.quiet}>
                  {name}: {Array.isArray(value) ? value.join(", ") : String(value)}
                </Text>
              ))}
            </span>
            <Text size={200} className={styles.quiet}>
              {check.verdict === "skipped" ? texts.notTried : `${Math.round(check.latencyMs)} ${texts.milliseconds}`}
            </Text>
          </div>
        ))}
      </AccordionPanel>
    </AccordionItem>
  );
}

/** Where the target's own name is a short word, what it stands for. */
function nameOf(checks: readonly NetworkCheck[]): string {
  const to = checks.find((check) => check.to !== "")?.to.replace(/:\d+$/, "") ?? "";
  return checks[0]?.id.startsWith(to) === true || checks[0]?.id.includes(` ${to}/`) === true ? "" : to;
}

function Finding({ check }: { readonly check: NetworkCheck }): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  const title = texts.faults[check.fault?.id ?? ""];
  const lines = [
    [texts.failsAt, [texts.hops[check.hop] ?? check.hop, ...(title === undefined ? [] : [title])].join(" – ")],
    [texts.answer, check.answer],
    [texts.repair, <Repair key="repair" fault={check.fault} own={check.repair ?? check.fault?.action ?? ""} />],
  ] as const;
  return (
    <dl className={styles.finding}>
      {lines.map(([term, value]) => (
        <div key={term} style={{ display: "contents" }}>
          <dt className={styles.term}>{term}</dt>
          <dd className={styles.value}>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** In this language where it is known, and always as the appliance tells it: that names the exact thing. */
export function Repair({ fault, own }: { readonly fault: { readonly id: string } | undefined; readonly own: string }): ReactNode {
  const styles = useStyles();
  const known = useTexts().repairs[fault?.id ?? ""];
  if (known === undefined) return own;
  return (
    <>
      <Text block>{known}</Text>
      <Text block size={200} className={styles.quiet}>
        {own}
      </Text>
    </>
  );
}

function VerdictIcon({ verdict }: { readonly verdict: NetworkCheck["verdict"] }): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  const [label, icon] = {
    pass: [texts.passed, <PassIcon key="i" />],
    fail: [texts.failed, <FailIcon key="i" />],
    skipped: [texts.notTried, <SkippedIcon key="i" />],
  }[verdict] as [string, ReactNode];
  return (
    <span className={styles[verdict]} role="img" aria-label={label}>
      {icon}
    </span>
  );
}
