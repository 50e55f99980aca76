// The few signs that the page draws: each has the colour of the text around it.

import type { ReactNode } from "react";

function Sign({ path, isFilled = false }: { readonly path: string; readonly isFilled?: boolean }): ReactNode {
  const stroke = isFilled ? "none" : "currentColor";
  return (
    <svg
      width="20"
      height="20"
      viewBox="0 0 20 20"
      fill={isFilled ? "currentColor" : "none"}
      stroke={stroke}
      strokeWidth="1.6"
      aria-hidden="true"
    >
      <path d={path} strokeLinecap="round" strokeLinejoin="round" fillRule="evenodd" />
    </svg>
  );
}

const disc = "M10 2a8 8 0 1 1 0 16a8 8 0 0 1 0-16";

export function PassIcon(): ReactNode {
  return <Sign isFilled path={`${disc}zM13.8 7.1l-4.9 5l-2.2-2.1l-1 1.1l3.2 3.1l6-6.1z`} />;
}

export function FailIcon(): ReactNode {
  return (
    <Sign isFilled path={`${disc}zM7.2 6.1L6.1 7.2L8.9 10l-2.8 2.8l1.1 1.1L10 11.1l2.8 2.8l1.1-1.1L11.1 10l2.8-2.8l-1.1-1.1L10 8.9z`} />
  );
}

export function SkippedIcon(): ReactNode {
  return <Sign path={`${disc}M6.5 10h7`} />;
}

export function MoonIcon(): ReactNode {
  return <Sign path="M16.5 11.8A7 7 0 1 1 8.2 3.5a5.5 5.5 0 0 0 8.3 8.3z" />;
}

export function SunIcon(): ReactNode {
  return (
    <Sign path="M10 6.5a3.5 3.5 0 1 1 0 7a3.5 3.5 0 0 1 0-7M10 1.8v1.6M10 16.6v1.6M1.8 10h1.6M16.6 10h1.6M4.2 4.2l1.1 1.1M14.7 14.7l1.1 1.1M4.2 15.8l1.1-1.1M14.7 5.3l1.1-1.1" />
  );
}
