// Which language the page speaks: the browser's, until the person chooses; kept in this browser only.

import { createContext, use, useState, type ReactNode } from "react";
import { english, type Texts } from "./texts-en.ts";
import { japanese } from "./texts-ja.ts";

const languages = { en: english, ja: japanese } as const;
export type Language = keyof typeof languages;
const keptName = "watari-language";

interface Spoken {
  readonly language: Language;
  readonly texts: Texts;
  readonly speak: (language: Language) => void;
}

const SpokenContext = createContext<Spoken>({ language: "en", texts: english, speak: () => undefined });

export function LanguageProvider({ children }: { readonly children: ReactNode }): ReactNode {
  const [language, setLanguage] = useState(firstLanguage);
  document.documentElement.lang = language;
  document.title = `Watari – ${languages[language].title}`;
  const speak = (wanted: Language): void => {
    localStorage.setItem(keptName, wanted);
    setLanguage(wanted);
  };
  return <SpokenContext value={{ language, texts: languages[language], speak }}>{children}</SpokenContext>;
}

export function useLanguage(): Spoken {
  return use(SpokenContext);
}

export function useTexts(): Texts {
  return use(SpokenContext).texts;
}

export const languageNames: readonly { readonly language: Language; readonly name: string }[] = [
  { language: "en", name: english.languageName },
  { language: "ja", name: japanese.languageName },
];

function firstLanguage(): Language {
  const kept = localStorage.getItem(keptName);
  if (kept === "en" || kept === "ja") return kept;
  return navigator.language.startsWith("ja") ? "ja" : "en";
}
