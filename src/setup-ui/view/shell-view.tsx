// The set-up when one is signed in: the steps beside the page of one of them. Which one is in the address, so that a reload stays there.

import { Button, makeStyles, Spinner, tokens } from "@fluentui/react-components";
import { useEffect, useState, type ReactNode } from "react";
import type { SetupState } from "../../contract/appliance-setup.ts";
import { setupSteps, type SetupStep } from "../../contract/setup-steps.ts";
import { call } from "./api.ts";
import type { ThemeSwitch } from "./app.tsx";
import { CheckPage } from "./check-page.tsx";
import { ComponentsPage } from "./components-page.tsx";
import { CredentialsPage } from "./credentials-page.tsx";
import { DonePage } from "./done-page.tsx";
import { FaultView } from "./fault-view.tsx";
import { useTexts } from "./language.tsx";
import { NamesPage } from "./names-page.tsx";
import { NetworkPage } from "./network-page.tsx";
import { ProxyPage } from "./proxy-page.tsx";
import { RegistrationPage } from "./registration-page.tsx";
import type { StepPageProps } from "./step-frame.tsx";
import { StepList } from "./step-list.tsx";
import { TimePage } from "./time-page.tsx";
import { TopBar } from "./top-bar.tsx";
import { useSetup, type Setup } from "./use-setup.ts";
import { VcenterPage } from "./vcenter-page.tsx";

const useStyles = makeStyles({
  page: { minHeight: "100vh", backgroundColor: tokens.colorNeutralBackground2 },
  columns: {
    ...{ display: "grid", gridTemplateColumns: "248px minmax(0, 1fr)", columnGap: tokens.spacingHorizontalXXXL },
    ...{ padding: `${tokens.spacingVerticalXXL} ${tokens.spacingHorizontalXL}`, maxWidth: "1120px", margin: "0 auto" },
    "@media (max-width: 760px)": { gridTemplateColumns: "minmax(0, 1fr)", rowGap: tokens.spacingVerticalXL },
  },
  waiting: { display: "grid", placeItems: "center", padding: "20vh 24px" },
});

const pages: Readonly<Record<SetupStep, (props: StepPageProps) => ReactNode>> = {
  network: NetworkPage,
  names: NamesPage,
  proxy: ProxyPage,
  time: TimePage,
  registration: RegistrationPage,
  vcenter: VcenterPage,
  credentials: CredentialsPage,
  check: CheckPage,
};

export type Place = SetupStep | "done" | "components";

export function ShellView({ theme, onSignedOut }: { readonly theme: ThemeSwitch; readonly onSignedOut: () => void }): ReactNode {
  const styles = useStyles();
  const texts = useTexts();
  const { state, ...rest } = useSetup(onSignedOut);
  const [place, go] = usePlace(state);
  const signOut = async (): Promise<void> => {
    await call("signOut", {}).catch(() => undefined); // A session that has ended already is what is wanted.
    onSignedOut();
  };
  if (state === undefined || place === undefined) {
    return (
      <div className={styles.page}>
        <TopBar theme={theme} />
        <div className={styles.waiting}>{rest.fault === undefined ? <Spinner /> : <FaultView fault={rest.fault} />}</div>
      </div>
    );
  }
  const setup: Setup = { ...rest, state };
  const open = (wanted: Place): void => {
    rest.clearFault();
    go(wanted);
  };
  return (
    <div className={styles.page}>
      <TopBar theme={theme} machineName={state.network.name}>
        <Button size="small" appearance="subtle" onClick={() => void signOut()}>
          {texts.signOut}
        </Button>
      </TopBar>
      <div className={styles.columns}>
        <StepList state={state} place={place} onOpen={open} />
        <main>{pageOf(place, setup, open)}</main>
      </div>
    </div>
  );
}

function pageOf(place: Place, setup: Setup, open: (place: Place) => void): ReactNode {
  if (place === "components") return <ComponentsPage />;
  if (place === "done") return <DonePage state={setup.state} onComponents={() => open("components")} />;
  const Page = pages[place];
  const next = setupSteps[setupSteps.indexOf(place) + 1];
  return <Page key={place} setup={setup} onNext={() => open(next ?? "done")} />;
}

/** The place in the address while it may be opened, else the step that comes next. */
function usePlace(state: SetupState | undefined): [Place | undefined, (place: Place) => void] {
  const [wanted, setWanted] = useState(() => location.hash.slice(2));
  useEffect(() => {
    const follow = (): void => setWanted(location.hash.slice(2));
    addEventListener("hashchange", follow);
    return () => removeEventListener("hashchange", follow);
  }, []);
  const place = state === undefined ? undefined : placeFor(wanted, state);
  useEffect(() => {
    if (place === undefined || wanted === place) return;
    // From here on it is what was wanted, so that a step that is settled stays in view with what it found.
    history.replaceState(undefined, "", `#/${place}`);
    setWanted(place);
  }, [place, wanted]);
  const go = (to: Place): void => {
    history.pushState(undefined, "", `#/${to}`);
    setWanted(to);
  };
  return [place, go];
}

function placeFor(wanted: string, { steps, isFinished }: SetupState): Place {
  if (wanted === "components") return wanted;
  const found = steps.find(({ step, status }) => step === wanted && status !== "later");
  if (found !== undefined) return found.step;
  return isFinished ? "done" : (steps.find(({ status }) => status === "current")?.step ?? "network");
}
