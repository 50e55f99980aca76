// Every component with its health: what was measured, beside the limits by which it is judged, and what is wrong.

import { Badge, Card, makeStyles, mergeClasses, Spinner, Text, Title2, tokens } from "@fluentui/react-components";
import { useEffect, useState, type ReactNode } from "react";
import type { ComponentMeasure, HealthLevel, SetupComponent } from "../../contract/appliance-setup.ts";
import type { FaultReport } from "../../contract/errors.ts";
import { call, Refused } from "./api.ts";
import { FaultView } from "./fault-view.tsx";
import { useLanguage, useTexts } from "./language.tsx";
import { toTimeText } from "./time-text.ts";

const renewMs = 10_000;

const useStyles = makeStyles({
  page: { display: "grid", rowGap: tokens.spacingVerticalL, gridTemplateColumns: "minmax(0, 1fr)" },
  quiet: { color: tokens.colorNeutralForeground3 },
  grid: {
    display: "grid",
    gridTemplateColumns: "repeat(auto-fill, minmax(min(360px, 100%), 1fr))",
    gap: tokens.spacingHorizontalL,
    alignItems: "start",
  },
  head: { display: "flex", alignItems: "center", columnGap: tokens.spacingHorizontalM },
  name: { flexGrow: 1, minWidth: 0, overflowWrap: "anywhere", display: "grid" },
  measures: {
    display: "grid",
    gridTemplateColumns: "minmax(0, 1fr) max-content",
    columnGap: tokens.spacingHorizontalM,
    rowGap: tokens.spacingVerticalXS,
  },
  value: { textAlign: "right", fontVariantNumeric: "tabular-nums" },
  warning: { color: tokens.colorStatusWarningForeground1, fontWeight: tokens.fontWeightSemibold },
  critical: { color: tokens.colorStatusDangerForeground1, fontWeight: tokens.fontWeightSemibold },
  limit: { gridColumn: "1 / -1", color: tokens.colorNeutralForeground3, marginBottom: tokens.spacingVerticalXS },
});

interface Seen {
  readonly at: string;
  readonly components: readonly SetupComponent[];
}

export function ComponentsPage(): ReactNode {
  const styles = useStyles();
  const { texts, language } = useLanguage();
  const [seen, setSeen] = useState<Seen | undefined>();
  const [fault, setFault] = useState<FaultReport | undefined>();
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isGone = false;
    const look = async (): Promise<void> => {
      try {
        setSeen(await call("components", {}));
        setFault(undefined);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        setFault(error.fault);
      }
      if (!isGone) timer = setTimeout(() => void look(), renewMs);
    };
    void look();
    return () => {
      isGone = true;
      clearTimeout(timer);
    };
  }, []);
  return (
    <div className={styles.page}>
      <Title2 as="h1">{texts.components}</Title2>
      <Text className={styles.quiet}>{texts.componentsPage.lead}</Text>
      {fault === undefined ? undefined : <FaultView fault={fault} />}
      {seen === undefined ? (
        <Spinner />
      ) : (
        <>
          <div className={styles.grid}>
            {seen.components.map((component, index) => (
              <ComponentCard key={`${component.kind} ${component.name} ${index}`} component={component} />
            ))}
          </div>
          <Text size={200} className={styles.quiet}>
            {texts.lastChecked(toTimeText(seen.at, language))}
          </Text>
        </>
      )}
    </div>
  );
}

const colours = { healthy: "success", warning: "warning", critical: "danger", unknown: "informative" } as const satisfies Record<
  HealthLevel,
  string
>;

function ComponentCard({ component }: { readonly component: SetupComponent }): ReactNode {
  const styles = useStyles();
  const { componentsPage: own } = useTexts();
  const { kind, name, isElsewhere, level, measures, faults } = component;
  return (
    <Card data-kind={kind} data-level={level}>
      <div className={styles.head}>
        <div className={styles.name}>
          <Text weight="semibold">{own.kinds[kind]}</Text>
          <Text size={200} className={styles.quiet}>
            {isElsewhere === true ? own.elsewhere(name) : name}
          </Text>
        </div>
        <Badge appearance="tint" color={colours[level]}>
          {own.levels[level]}
        </Badge>
      </div>
      {measures.length === 0 ? undefined : (
        <div className={styles.measures}>
          {measures.map((measure) => (
            <MeasureView key={measure.measure} measure={measure} />
          ))}
        </div>
      )}
      {faults.map((each) => (
        <FaultView key={`${each.id} ${each.message}`} fault={each} />
      ))}
      {measures.length === 0 && faults.length === 0 ? (
        <Text size={200} className={styles.quiet}>
          {level === "unknown" ? own.notRegistered : own.noFaults}
        </Text>
      ) : undefined}
    </Card>
  );
}

function MeasureView({ measure: { measure, value, unit, warning, critical, level } }: { readonly measure: ComponentMeasure }): ReactNode {
  const styles = useStyles();
  const { componentsPage: own } = useTexts();
  const toText = (each: number): string => (unit === "share" ? own.share(each) : own.minutes(each));
  const limit = (each: number | undefined): string | undefined => (each === undefined ? undefined : toText(each));
  return (
    <>
      <Text>{own.measures[measure]}</Text>
      <Text className={mergeClasses(styles.value, level === "warning" && styles.warning, level === "critical" && styles.critical)}>
        {value === undefined ? own.unknown : toText(value)}
      </Text>
      <Text size={200} className={styles.limit}>
        {own.limits(limit(warning), limit(critical), measure === "cacheFree")}
      </Text>
    </>
  );
}
