// Step 7: accounts for guests, typed by what they are; the secrets stay on the appliance.

import { Button, Field, Input, makeStyles, Radio, RadioGroup, Text, Textarea, tokens } from "@fluentui/react-components";
import { useState, type ReactNode } from "react";
import { call } from "./api.ts";
import { FactsList } from "./facts-list.tsx";
import { GuestTrial } from "./guest-trial.tsx";
import { useTexts } from "./language.tsx";
import { StepFrame, type StepPageProps } from "./step-frame.tsx";

const useStyles = makeStyles({
  mono: { fontFamily: tokens.fontFamilyMonospace },
  quiet: { color: tokens.colorNeutralForeground3 },
  row: { display: "flex", alignItems: "center", flexWrap: "wrap", columnGap: tokens.spacingHorizontalM, rowGap: tokens.spacingVerticalS },
});

const empty = {
  name: "",
  kind: "linux-password",
  userName: "root",
  privilege: "root",
  secret: "",
  keyPassphrase: "",
  sudoPassword: "",
} as const;
type Draft = { readonly [Key in keyof typeof empty]: string };

export function CredentialsPage({ setup, onNext }: StepPageProps): ReactNode {
  const texts = useTexts();
  const own = texts.credentials;
  const guests = setup.state.credentials.filter(({ kind }) => kind !== "vcenter");
  const [draft, setDraft] = useState<Draft>(empty);
  const [isAdding, setAdding] = useState(guests.length === 0);
  const set = (change: Partial<Draft>): void => setDraft({ ...draft, ...change });
  const isKey = draft.kind === "linux-key";
  const add = async (): Promise<void> => {
    const { keyPassphrase, sudoPassword, name, userName, secret } = draft;
    const state = await setup.act("addCredential", {
      ...{ name: name.trim(), userName: userName.trim(), secret },
      kind: isKey ? "linux-key" : "linux-password",
      privilege: draft.privilege === "sudo" ? "sudo" : "root",
      ...(isKey && keyPassphrase !== "" ? { keyPassphrase } : {}),
      ...(isKey && draft.privilege === "sudo" && sudoPassword !== "" ? { sudoPassword } : {}),
    });
    if (state === undefined) return;
    setDraft(empty);
    setAdding(false);
  };
  const confirm = async (): Promise<void> => {
    if ((await setup.act("confirmCredentials", {})) !== undefined) onNext();
  };
  const isReady = [draft.name, draft.userName, draft.secret].every((each) => each.trim() !== "");
  const isSettled = setup.state.steps.find(({ step }) => step === "credentials")?.status === "done";
  const goOn = (
    <Button appearance={guests.length === 0 || isAdding ? "subtle" : "primary"} disabled={setup.isBusy} onClick={() => void confirm()}>
      {guests.length === 0 ? own.confirmNone : own.confirm}
    </Button>
  );
  return (
    <StepFrame
      {...{ setup, onNext }}
      step="credentials"
      secondary={isSettled ? undefined : goOn}
      {...(isAdding ? { action: { label: own.add, busyLabel: own.adding, isReady, run: add } } : {})}
    >
      {guests.length === 0 ? (
        <Text>{own.none}</Text>
      ) : (
        <FactsList
          facts={guests.map((each) => [each.name, `${each.userName} – ${own.kinds[each.kind]}, ${own.privileges[each.privilege]}`])}
        />
      )}
      {isAdding ? (
        <AccountForm draft={draft} set={set} />
      ) : (
        <div>
          <Button onClick={() => setAdding(true)}>{own.add}</Button>
        </div>
      )}
      {guests.length === 0 || isAdding ? undefined : <GuestTrial names={guests.map(({ name }) => name)} />}
      <Passphrase />
    </StepFrame>
  );
}

function Passphrase(): ReactNode {
  const styles = useStyles();
  const { credentials: own } = useTexts();
  const [passphrase, setPassphrase] = useState<string | undefined>();
  const show = async (): Promise<void> => {
    const answer = await call("passphrase", {}).catch(() => undefined); // The session has ended: the next action says so.
    setPassphrase(answer?.passphrase);
  };
  return (
    <div className={styles.row}>
      <Text size={200} className={styles.quiet}>
        {own.passphrase}
      </Text>
      {passphrase === undefined ? (
        <Button size="small" onClick={() => void show()}>
          {own.showPassphrase}
        </Button>
      ) : (
        <Text className={styles.mono}>{passphrase}</Text>
      )}
    </div>
  );
}

function AccountForm({ draft, set }: { readonly draft: Draft; readonly set: (change: Partial<Draft>) => void }): ReactNode {
  const styles = useStyles();
  const { credentials: own, optional } = useTexts();
  const isKey = draft.kind === "linux-key";
  return (
    <>
      <Field label={own.name} hint={own.nameHint}>
        <Input value={draft.name} placeholder="linux-guests" onChange={(_event, { value }) => set({ name: value })} />
      </Field>
      <Field label={own.kind}>
        <RadioGroup layout="horizontal" value={draft.kind} onChange={(_event, { value }) => set({ kind: value, secret: "" })}>
          <Radio value="linux-password" label={own.kinds["linux-password"]} />
          <Radio value="linux-key" label={own.kinds["linux-key"]} />
        </RadioGroup>
      </Field>
      <Field label={own.user}>
        <Input autoComplete="off" value={draft.userName} onChange={(_event, { value }) => set({ userName: value })} />
      </Field>
      <Field label={own.privilege}>
        <RadioGroup layout="horizontal" value={draft.privilege} onChange={(_event, { value }) => set({ privilege: value })}>
          <Radio value="root" label={own.privileges.root} />
          <Radio value="sudo" label={own.privileges.sudo} />
        </RadioGroup>
      </Field>
      {isKey ? (
        <>
          <Field label={own.key}>
            <Textarea
              rows={5}
              resize="vertical"
              spellCheck={false}
              textarea={{ className: styles.mono }}
              value={draft.secret}
              onChange={(_event, { value }) => set({ secret: value })}
            />
          </Field>
          <Field label={`${own.keyPassphrase} – ${optional}`}>
            <Input
              type="password"
              autoComplete="new-password"
              value={draft.keyPassphrase}
              onChange={(_event, { value }) => set({ keyPassphrase: value })}
            />
          </Field>
        </>
      ) : (
        <Field label={own.password}>
          <Input
            type="password"
            autoComplete="new-password"
            value={draft.secret}
            onChange={(_event, { value }) => set({ secret: value })}
          />
        </Field>
      )}
      {isKey && draft.privilege === "sudo" ? (
        <Field label={`${own.sudoPassword} – ${optional}`}>
          <Input
            type="password"
            autoComplete="new-password"
            value={draft.sudoPassword}
            onChange={(_event, { value }) => set({ sudoPassword: value })}
          />
        </Field>
      ) : undefined}
    </>
  );
}
