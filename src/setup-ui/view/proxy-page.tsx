// Step 3: the proxy for public names; what never goes by it follows from the key.

import { Field, Input, makeStyles, Text, tokens } from "@fluentui/react-components";
import { useState, type ReactNode } from "react";
import { CopyButton } from "./copy-button.tsx";
import { FactsList, Lines } from "./facts-list.tsx";
import { useTexts } from "./language.tsx";
import { StepFrame, type StepPageProps } from "./step-frame.tsx";

const useStyles = makeStyles({
  row: { display: "flex", alignItems: "center", columnGap: tokens.spacingHorizontalM },
  quiet: { color: tokens.colorNeutralForeground3 },
});

export function ProxyPage({ setup, onNext }: StepPageProps): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  const { proxy, key } = setup.state;
  const [url, setUrl] = useState(proxy.url ?? "");
  const [userName, setUserName] = useState(proxy.userName ?? "");
  const [password, setPassword] = useState("");
  const save = async (): Promise<void> => {
    const login = { userName: userName.trim(), ...(password === "" ? {} : { password }) };
    const state = await setup.act("saveProxy", { url: url.trim(), ...login });
    if (state !== undefined) setPassword("");
  };
  const publicNames = key?.publicNames ?? [];
  const isKept = proxy.userName !== undefined && proxy.userName === userName.trim();
  return (
    <StepFrame {...{ setup, onNext }} step="proxy" action={{ label: texts.saveAndCheck, isReady: true, run: save }}>
      <Field label={`${texts.proxy.url} – ${texts.optional}`} hint={texts.proxy.urlHint}>
        <Input value={url} placeholder="http://proxy.example:3128" onChange={(_event, { value }) => setUrl(value)} />
      </Field>
      {url.trim() === "" ? undefined : (
        <>
          <Field label={`${texts.proxy.user} – ${texts.optional}`}>
            <Input autoComplete="off" value={userName} onChange={(_event, { value }) => setUserName(value)} />
          </Field>
          {userName.trim() === "" ? undefined : (
            <Field label={texts.proxy.password} hint={isKept ? texts.proxy.passwordKept : null}>
              <Input type="password" autoComplete="new-password" value={password} onChange={(_event, { value }) => setPassword(value)} />
            </Field>
          )}
        </>
      )}
      {publicNames.length === 0 ? <Text>{texts.proxy.none}</Text> : undefined}
      <FactsList
        facts={[
          ...(publicNames.length === 0 ? [] : [[texts.proxy.publicNames, <Lines key="public" lines={publicNames} />] as const]),
          [texts.proxy.bypass, <Lines key="bypass" lines={proxy.bypass} />],
        ]}
      />
      <div className={styles.row}>
        <CopyButton text={proxy.bypass.join(";")} />
        <Text size={200} className={styles.quiet}>
          {texts.proxy.bypassHint}
        </Text>
      </div>
    </StepFrame>
  );
}
