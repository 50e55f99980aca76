// The way in: one password, and what to do when it is lost.

import { Button, Card, Field, Input, makeStyles, Text, Title2, tokens } from "@fluentui/react-components";
import { useState, type ReactNode } from "react";
import type { FaultReport } from "../../contract/errors.ts";
import { call, keepToken, Refused } from "./api.ts";
import type { ThemeSwitch } from "./app.tsx";
import { FaultView } from "./fault-view.tsx";
import { useTexts } from "./language.tsx";
import { TopBar } from "./top-bar.tsx";

const useStyles = makeStyles({
  page: { minHeight: "100vh", backgroundColor: tokens.colorNeutralBackground2 },
  card: {
    width: "min(420px, calc(100vw - 64px))",
    margin: "12vh auto 0",
    padding: tokens.spacingHorizontalXXL,
    rowGap: tokens.spacingVerticalL,
  },
  form: { display: "grid", rowGap: tokens.spacingVerticalL },
  help: { color: tokens.colorNeutralForeground3 },
});

export function SignInView({ theme, onSignedIn }: { readonly theme: ThemeSwitch; readonly onSignedIn: () => void }): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  const [password, setPassword] = useState("");
  const [isBusy, setBusy] = useState(false);
  const [fault, setFault] = useState<FaultReport | undefined>();
  const signIn = async (): Promise<void> => {
    setBusy(true);
    try {
      const { token } = await call("signIn", { password });
      keepToken(token);
      onSignedIn();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      setFault(error.fault);
      setBusy(false);
    }
  };
  return (
    <div className={styles.page}>
      <TopBar theme={theme} />
      <main>
        <Card className={styles.card}>
          <Title2 as="h1">{texts.title}</Title2>
          <form
            className={styles.form}
            onSubmit={(event) => {
              event.preventDefault();
              void signIn();
            }}
          >
            <Field label={texts.password} hint={texts.signInLead}>
              <Input
                type="password"
                autoComplete="current-password"
                autoFocus
                value={password}
                onChange={(_event, { value }) => setPassword(value)}
              />
            </Field>
            {fault === undefined ? undefined : <FaultView fault={fault} />}
            <Button type="submit" appearance="primary" disabled={isBusy || password === ""}>
              {texts.signIn}
            </Button>
          </form>
          <Text size={200} className={styles.help}>
            {texts.signInHelp}
          </Text>
        </Card>
      </main>
    </div>
  );
}
