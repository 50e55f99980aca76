// Tries a guest account where it will be used, before anything relies on it.

import { Button, Field, Input, makeStyles, MessageBar, Select, Spinner, tokens } from "@fluentui/react-components";
import { useState, type ReactNode } from "react";
import type { FaultReport } from "../../contract/errors.ts";
import { call, Refused } from "./api.ts";
import { FaultView } from "./fault-view.tsx";
import { useTexts } from "./language.tsx";

const useStyles = makeStyles({
  box: {
    ...{ display: "grid", rowGap: tokens.spacingVerticalM, padding: tokens.spacingHorizontalM, borderRadius: tokens.borderRadiusMedium },
    ...{ border: `1px solid ${tokens.colorNeutralStroke2}`, backgroundColor: tokens.colorNeutralBackground1 },
  },
  row: { display: "flex", alignItems: "end", flexWrap: "wrap", columnGap: tokens.spacingHorizontalM, rowGap: tokens.spacingVerticalS },
  address: { flexGrow: 1, minWidth: "160px" },
});

type Outcome = { readonly kind: "works"; readonly machine: string } | { readonly kind: "failed"; readonly fault: FaultReport };

export function GuestTrial({ names }: { readonly names: readonly string[] }): ReactNode {
  const styles = useStyles();
  const { credentials: own } = useTexts();
  const [name, setName] = useState(names[0] ?? "");
  const [address, setAddress] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [outcome, setOutcome] = useState<Outcome | undefined>();
  const attempt = async (): Promise<void> => {
    setBusy(true);
    setOutcome(undefined);
    try {
      const { machine } = await call("tryCredential", { credential: name, address: address.trim() });
      setOutcome({ kind: "works", machine });
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setOutcome({ kind: "failed", fault: error.fault });
    } finally {
      setBusy(false);
    }
  };
  return (
    <section className={styles.box} aria-label={own.trial}>
      <div className={styles.row}>
        <Field label={own.trial}>
          <Select value={name} onChange={(_event, { value }) => setName(value)}>
            {names.map((each) => (
              <option key={each}>{each}</option>
            ))}
          </Select>
        </Field>
        <Field label={own.trialAddress} className={styles.address}>
          <Input value={address} onChange={(_event, { value }) => setAddress(value)} />
        </Field>
        <Button disabled={isBusy || address.trim() === ""} onClick={() => void attempt()}>
          {isBusy ? own.trying : own.try}
        </Button>
        {isBusy ? <Spinner size="tiny" /> : undefined}
      </div>
      {outcome?.kind === "works" ? (
        <MessageBar intent="success">
          {own.works} {outcome.machine}
        </MessageBar>
      ) : undefined}
      {outcome?.kind === "failed" ? <FaultView fault={outcome.fault} /> : undefined}
    </section>
  );
}
