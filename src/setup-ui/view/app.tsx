// The page as a whole: theme, language, and either the sign-in or the set-up.

import {
  createDOMRenderer,
  FluentProvider,
  makeStyles,
  RendererProvider,
  Spinner,
  webDarkTheme,
  webLightTheme,
} from "@fluentui/react-components";
import { useEffect, useState, type ReactNode } from "react";
import { call, keepToken } from "./api.ts";
import { LanguageProvider, useLanguage } from "./language.tsx";
import { ShellView } from "./shell-view.tsx";
import { SignInView } from "./sign-in-view.tsx";

const nonce = document.querySelector("meta[name=style-nonce]")?.getAttribute("content") ?? "";
const renderer = createDOMRenderer(document, { styleElementAttributes: { nonce } });
const keptName = "watari-theme";

/** Words of Japanese are shown by a Japanese face: the same code points look different in a Chinese one. */
const faces = {
  en: '"Segoe UI Variable", "Segoe UI", system-ui, "Noto Sans", sans-serif',
  ja: '"Yu Gothic UI", "Hiragino Sans", "Noto Sans CJK JP", "Noto Sans JP", system-ui, sans-serif',
} as const;

const useStyles = makeStyles({ waiting: { minHeight: "100vh", display: "grid", placeItems: "center" } });

export function App(): ReactNode {
  return (
    <RendererProvider renderer={renderer} targetDocument={document}>
      <LanguageProvider>
        <Themed />
      </LanguageProvider>
    </RendererProvider>
  );
}

function Themed(): ReactNode {
  const { language } = useLanguage();
  const [isDark, setDark] = useState(firstIsDark);
  const theme = { ...(isDark ? webDarkTheme : webLightTheme), fontFamilyBase: faces[language] };
  const toggle = (): void => {
    localStorage.setItem(keptName, isDark ? "light" : "dark");
    setDark(!isDark);
  };
  return (
    <FluentProvider theme={theme} applyStylesToPortals>
      <Door theme={{ isDark, toggle }} />
    </FluentProvider>
  );
}

export interface ThemeSwitch {
  readonly isDark: boolean;
  readonly toggle: () => void;
}

function Door({ theme }: { readonly theme: ThemeSwitch }): ReactNode {
  const styles = useStyles();
  const [door, setDoor] = useState<"asking" | "open" | "closed">("asking");
  useEffect(() => {
    void call("session", {}).then(
      ({ isSignedIn, token }) => {
        if (token !== undefined) keepToken(token);
        setDoor(isSignedIn ? "open" : "closed");
      },
      () => setDoor("closed"),
    );
  }, []);
  switch (door) {
    case "asking":
      return (
        <div className={styles.waiting}>
          <Spinner />
        </div>
      );
    case "closed":
      return <SignInView theme={theme} onSignedIn={() => setDoor("open")} />;
    case "open":
      return <ShellView theme={theme} onSignedOut={() => setDoor("closed")} />;
  }
}

function firstIsDark(): boolean {
  const kept = localStorage.getItem(keptName);
  return kept === null ? matchMedia("(prefers-color-scheme: dark)").matches : kept === "dark";
}
