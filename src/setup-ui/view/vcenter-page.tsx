// Step 6: vCenters, each kept after its login has succeeded; an unknown certificate is shown before it is trusted.

import { Button, Field, Input, makeStyles, MessageBar, MessageBarBody, MessageBarTitle, Text, tokens } from "@fluentui/react-components";
import { useState, type ReactNode } from "react";
import { FactsList } from "./facts-list.tsx";
import { useTexts } from "./language.tsx";
import { StepFrame, type StepPageProps } from "./step-frame.tsx";

const useStyles = makeStyles({
  pair: { display: "grid", gridTemplateColumns: "minmax(0, 1fr) 128px", columnGap: tokens.spacingHorizontalM },
  warning: {
    display: "grid",
    rowGap: tokens.spacingVerticalS,
    justifyItems: "start",
    paddingTop: tokens.spacingVerticalS,
    whiteSpace: "normal",
  },
  mono: { fontFamily: tokens.fontFamilyMonospace, overflowWrap: "anywhere" },
  port: { width: "100%", minWidth: 0 },
});

interface Draft {
  readonly name: string;
  readonly host: string;
  readonly port: string;
  readonly userName: string;
  readonly password: string;
}

export function VcenterPage({ setup, onNext }: StepPageProps): ReactNode {
  const texts = useTexts();
  const { vcenters, hasNoVcenter, machineCount } = setup.state;
  const [isAdding, setAdding] = useState(vcenters.length === 0);
  const [draft, setDraft] = useState<Draft>({
    name: "vcenter",
    host: "",
    port: "443",
    userName: "administrator@vsphere.local",
    password: "",
  });
  const add = async (thumbprint?: string): Promise<void> => {
    const { name, host, port, userName, password } = draft;
    const vcenter = { name: name.trim(), host: host.trim(), port: Number(port), userName: userName.trim(), password };
    const state = await setup.act("addVcenter", { ...vcenter, ...(thumbprint === undefined ? {} : { thumbprint }) });
    if (state === undefined) return;
    setDraft({ ...draft, password: "" });
    setAdding(false);
  };
  const untrusted = setup.fault?.id === "VcenterUntrusted" ? setup.fault.evidence["thumbprint"] : undefined;
  const isReady = Object.values(draft).every((each) => each.trim() !== "") && /^\d{1,5}$/.test(draft.port);
  const action = { label: texts.vcenter.add, busyLabel: texts.vcenter.adding, isReady, run: async () => await add() };
  const skip = (
    <Button
      appearance="subtle"
      disabled={setup.isBusy}
      onClick={() => void setup.act("skipVcenter", {}).then((state) => (state === undefined ? undefined : onNext()))}
    >
      {texts.vcenter.skip}
    </Button>
  );
  return (
    <StepFrame
      {...{ setup, onNext }}
      step="vcenter"
      secondary={vcenters.length === 0 && !hasNoVcenter ? skip : undefined}
      isFaultShown={typeof untrusted !== "string"}
      {...(isAdding ? { action } : {})}
    >
      {vcenters.length === 0 ? undefined : (
        <FactsList
          facts={vcenters.map((each) => [
            each.name,
            `${each.host}:${each.port} – ${each.fault?.message ?? texts.vcenter.machines(machineCount)}`,
          ])}
        />
      )}
      {hasNoVcenter && vcenters.length === 0 ? <MessageBar>{texts.vcenter.skipped}</MessageBar> : undefined}
      {isAdding ? (
        <>
          <VcenterForm draft={draft} onChange={(change) => setDraft({ ...draft, ...change })} />
          {typeof untrusted === "string" ? (
            <CertificateView thumbprint={untrusted} isBusy={setup.isBusy} onTrust={() => void add(untrusted)} />
          ) : undefined}
        </>
      ) : (
        <div>
          <Button onClick={() => setAdding(true)}>{texts.vcenter.another}</Button>
        </div>
      )}
    </StepFrame>
  );
}

interface CertificateViewProps {
  readonly thumbprint: string;
  readonly isBusy: boolean;
  readonly onTrust: () => void;
}

function CertificateView({ thumbprint, isBusy, onTrust }: CertificateViewProps): ReactNode {
  const styles = useStyles();
  const { vcenter } = useTexts();
  return (
    <MessageBar intent="warning" layout="multiline" role="alert">
      <MessageBarBody className={styles.warning}>
        <MessageBarTitle>{vcenter.untrusted}</MessageBarTitle>
        <Text>{vcenter.untrustedHint}</Text>
        <Text className={styles.mono}>{withColons(thumbprint)}</Text>
        <Button disabled={isBusy} onClick={onTrust}>
          {vcenter.trust}
        </Button>
      </MessageBarBody>
    </MessageBar>
  );
}

function VcenterForm({ draft, onChange }: { readonly draft: Draft; readonly onChange: (change: Partial<Draft>) => void }): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  return (
    <>
      <Field label={texts.vcenter.name} hint={texts.vcenter.nameHint}>
        <Input value={draft.name} onChange={(_event, { value }) => onChange({ name: value })} />
      </Field>
      <div className={styles.pair}>
        <Field label={texts.vcenter.host}>
          <Input value={draft.host} placeholder="vcenter.example" onChange={(_event, { value }) => onChange({ host: value })} />
        </Field>
        <Field label={texts.vcenter.port}>
          <Input
            className={styles.port}
            inputMode="numeric"
            value={draft.port}
            onChange={(_event, { value }) => onChange({ port: value })}
          />
        </Field>
      </div>
      <Field label={texts.vcenter.user} hint={texts.vcenter.userHint}>
        <Input autoComplete="off" value={draft.userName} onChange={(_event, { value }) => onChange({ userName: value })} />
      </Field>
      <Field label={texts.vcenter.password}>
        <Input
          type="password"
          autoComplete="new-password"
          value={draft.password}
          onChange={(_event, { value }) => onChange({ password: value })}
        />
      </Field>
    </>
  );
}

function withColons(hex: string): string {
  return (hex.replaceAll(":", "").toUpperCase().match(/../g) ?? []).join(":");
}
