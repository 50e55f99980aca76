// The bar on top of every page: what this is, and language, theme and way out.

import { Button, makeStyles, Select, Text, tokens } from "@fluentui/react-components";
import type { ReactNode } from "react";
import type { ThemeSwitch } from "./app.tsx";
import { MoonIcon, SunIcon } from "./icons.tsx";
import { languageNames, useLanguage } from "./language.tsx";

const useStyles = makeStyles({
  bar: {
    ...{ display: "flex", alignItems: "center", flexWrap: "wrap", columnGap: tokens.spacingHorizontalM, rowGap: tokens.spacingVerticalS },
    padding: `${tokens.spacingVerticalS} ${tokens.spacingHorizontalXL}`,
    borderBottom: `1px solid ${tokens.colorNeutralStroke2}`,
    backgroundColor: tokens.colorNeutralBackground1,
  },
  name: { flexGrow: 1, display: "flex", alignItems: "baseline", columnGap: tokens.spacingHorizontalM, minWidth: 0 },
  machine: { color: tokens.colorNeutralForeground3, overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" },
});

export interface TopBarProps {
  readonly theme: ThemeSwitch;
  readonly machineName?: string;
  readonly children?: ReactNode;
}

export function TopBar({ theme, machineName, children }: TopBarProps): ReactNode {
  const styles = useStyles();
  const { language, texts, speak } = useLanguage();
  return (
    <header className={styles.bar}>
      <div className={styles.name}>
        <Text size={500} weight="semibold">
          Watari
        </Text>
        {machineName === undefined ? undefined : <Text className={styles.machine}>{machineName}</Text>}
      </div>
      {children}
      <Select
        size="small"
        aria-label={texts.language}
        value={language}
        onChange={(_event, { value }) => speak(value === "ja" ? "ja" : "en")}
      >
        {languageNames.map((each) => (
          <option key={each.language} value={each.language}>
            {each.name}
          </option>
        ))}
      </Select>
      <Button
        size="small"
        appearance="subtle"
        icon={theme.isDark ? <SunIcon /> : <MoonIcon />}
        aria-label={theme.isDark ? texts.theme.light : texts.theme.dark}
        title={theme.isDark ? texts.theme.light : texts.theme.dark}
        onClick={theme.toggle}
      />
    </header>
  );
}
