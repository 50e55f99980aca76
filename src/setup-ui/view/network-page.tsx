// Step 1: the appliance's name and the addresses that agents dial.

import { Checkbox, Field, Input, makeStyles, Text, tokens } from "@fluentui/react-components";
import { useState, type ReactNode } from "react";
import { useTexts } from "./language.tsx";
import { StepFrame, type StepPageProps } from "./step-frame.tsx";

const useStyles = makeStyles({ quiet: { color: tokens.colorNeutralForeground3 }, choices: { display: "grid" } });

export function NetworkPage({ setup, onNext }: StepPageProps): ReactNode {
  const styles = useStyles();
  const { network: own, saveAndCheck, optional } = useTexts();
  const { network } = setup.state;
  const [name, setName] = useState(network.name);
  const [chosen, setChosen] = useState<readonly string[]>(network.listenAddresses);
  const [advertised, setAdvertised] = useState(network.advertiseAddress ?? "");
  // Agents never reach a loopback address; it is shown only where it was chosen, as in a trial.
  const reachable = network.machineAddresses.filter(({ device }) => device !== "lo").map(({ address }) => address);
  const shown = [...new Set([...reachable, ...network.listenAddresses])];
  const toggle = (address: string): void =>
    setChosen(chosen.includes(address) ? chosen.filter((each) => each !== address) : [...chosen, address]);
  const save = async (): Promise<unknown> =>
    await setup.act("saveNetwork", { name: name.trim(), listenAddresses: [...chosen], advertiseAddress: advertised.trim() });
  return (
    <StepFrame
      {...{ setup, onNext }}
      step="network"
      action={{ label: saveAndCheck, isReady: name.trim() !== "" && chosen.length > 0, run: save }}
    >
      <Field label={own.name} hint={own.nameHint}>
        <Input value={name} onChange={(_event, { value }) => setName(value)} />
      </Field>
      <Field label={own.addresses} hint={own.addressesHint}>
        <div className={styles.choices} role="group" aria-label={own.addresses}>
          {shown.map((address) => {
            const device = network.machineAddresses.find((each) => each.address === address)?.device;
            return (
              <Checkbox
                key={address}
                checked={chosen.includes(address)}
                onChange={() => toggle(address)}
                label={device === undefined ? address : `${address}  (${device})`}
              />
            );
          })}
        </div>
      </Field>
      <Field label={`${own.advertise} – ${optional}`} hint={own.advertiseHint}>
        <Input value={advertised} onChange={(_event, { value }) => setAdvertised(value)} />
      </Field>
      <Text size={200} className={styles.quiet}>
        {own.change}
      </Text>
    </StepFrame>
  );
}
