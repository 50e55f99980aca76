// Puts a text into the clipboard and says that it did.

import { Button } from "@fluentui/react-components";
import { useState, type ReactNode } from "react";
import { useTexts } from "./language.tsx";

export function CopyButton({ text }: { readonly text: string }): ReactNode {
  const texts = useTexts();
  const [copied, setCopied] = useState("");
  const copy = async (): Promise<void> => {
    await navigator.clipboard.writeText(text);
    setCopied(text);
  };
  return (
    <Button size="small" style={{ flexShrink: 0 }} onClick={() => void copy()}>
      {copied === text ? texts.copied : texts.copy}
    </Button>
  );
}
