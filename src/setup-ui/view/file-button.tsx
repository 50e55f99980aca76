// A button that reads one small text file from this computer.

import { Button } from "@fluentui/react-components";
import { useRef, type ReactNode } from "react";

interface FileButtonProps {
  readonly label: string;
  readonly accept: string;
  readonly onText: (text: string) => void;
}

const bytesMax = 256 << 10;

export function FileButton({ label, accept, onText }: FileButtonProps): ReactNode {
  const input = useRef<HTMLInputElement>(null);
  const read = async (): Promise<void> => {
    const file = input.current?.files?.[0];
    if (file === undefined) return;
    onText(await file.slice(0, bytesMax).text());
    if (input.current !== null) input.current.value = "";
  };
  return (
    <>
      <Button onClick={() => input.current?.click()}>{label}</Button>
      <input ref={input} type="file" accept={accept} aria-label={label} hidden onChange={() => void read()} />
    </>
  );
}
