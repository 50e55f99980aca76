// Step 2: the key, which says the names, and where they are resolved.

import { Button, Field, Input, makeStyles, MessageBar, Text, Textarea, tokens } from "@fluentui/react-components";
import { useState, type ReactNode } from "react";
import type { FaultReport } from "../../contract/errors.ts";
import { call, Refused } from "./api.ts";
import { FactsList, Lines } from "./facts-list.tsx";
import { FaultView } from "./fault-view.tsx";
import { FileButton } from "./file-button.tsx";
import { useLanguage, useTexts } from "./language.tsx";
import { StepFrame, type StepPageProps } from "./step-frame.tsx";
import { toTimeText } from "./time-text.ts";

const useStyles = makeStyles({
  row: { display: "flex", alignItems: "center", flexWrap: "wrap", columnGap: tokens.spacingHorizontalM, rowGap: tokens.spacingVerticalS },
  area: { fontFamily: tokens.fontFamilyMonospace },
  quiet: { color: tokens.colorNeutralForeground3 },
});

export function NamesPage({ setup, onNext }: StepPageProps): ReactNode {
  const styles = useStyles();
  const { texts, language } = useLanguage();
  const { key, names } = setup.state;
  const [hostsText, setHostsText] = useState(() =>
    names.hosts.flatMap(({ name, addresses }) => addresses.map((each) => `${each} ${name}\n`)).join(""),
  );
  const [resolvers, setResolvers] = useState(names.dnsServers.join(" "));
  const save = async (registrationKey?: string): Promise<unknown> =>
    await setup.act("saveNames", {
      hostsText,
      dnsServers: resolvers.split(/[\s,;]+/).filter((each) => each !== ""),
      ...(registrationKey === undefined ? {} : { registrationKey }),
    });
  const isRegistered = setup.state.registration !== undefined;
  return (
    <StepFrame {...{ setup, onNext }} step="names" action={{ label: texts.saveAndCheck, isReady: key !== undefined, run: save }}>
      <Field label={texts.names.key} hint={isRegistered ? null : texts.names.keyHint}>
        <div className={styles.row}>
          {isRegistered ? undefined : (
            <FileButton
              label={key === undefined ? texts.names.chooseKey : texts.names.replaceKey}
              accept=".json,application/json"
              onText={(text) => void save(text)}
            />
          )}
        </div>
      </Field>
      {key === undefined ? undefined : (
        <FactsList
          facts={[
            [texts.names.keyFor, key.vaultResourceId],
            ...(isRegistered ? [] : [[texts.names.expires, toTimeText(key.expiresAt, language)] as const]),
            [texts.names.private, <Lines key="names" lines={key.privateNames} />],
          ]}
        />
      )}
      {key?.isExpired === true && !isRegistered ? <MessageBar intent="warning">{texts.names.expired}</MessageBar> : undefined}
      <Field label={`${texts.names.resolver} – ${texts.optional}`} hint={texts.names.resolverHint}>
        <Input value={resolvers} onChange={(_event, { value }) => setResolvers(value)} />
      </Field>
      <Field label={`${texts.names.hosts} – ${texts.optional}`} hint={texts.names.hostsHint}>
        <Textarea
          rows={5}
          resize="vertical"
          spellCheck={false}
          textarea={{ className: styles.area }}
          value={hostsText}
          onChange={(_event, { value }) => setHostsText(value)}
        />
      </Field>
      <div className={styles.row}>
        <FileButton label={texts.names.chooseHosts} accept=".txt,text/plain" onText={setHostsText} />
        {key === undefined ? undefined : <HostsDownload />}
      </div>
    </StepFrame>
  );
}

function HostsDownload(): ReactNode {
  const styles = useStyles();
  const { names } = useTexts();
  const [fault, setFault] = useState<FaultReport | undefined>();
  const download = async (): Promise<void> => {
    setFault(undefined);
    try {
      saveAsFile("hosts.txt", (await call("hostsFile", {})).text);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setFault(error.fault);
    }
  };
  return (
    <>
      <Button onClick={() => void download()}>{names.download}</Button>
      <Text size={200} className={styles.quiet}>
        {names.downloadHint}
      </Text>
      {fault === undefined ? undefined : <FaultView fault={fault} />}
    </>
  );
}

function saveAsFile(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name });
  link.click();
  URL.revokeObjectURL(url);
}
