// What the token endpoint answers: fields of a token, or an OAuth 2 error (RFC 6749, 5.2; RFC 8628, 3.5).

interface OAuthRefusal {
  readonly status: number;
  readonly error:
    | "invalid_request"
    | "unauthorized_client"
    | "invalid_client"
    | "unsupported_grant_type"
    | "invalid_scope"
    | "invalid_grant"
    | "authorization_pending"
    | "slow_down"
    | "access_denied"
    | "expired_token"
    | "temporarily_unavailable";
  readonly description: string;
}

export type OAuthOutcome = OAuthRefusal | Readonly<Record<string, unknown>>;

export function refuse(status: number, error: OAuthRefusal["error"], description: string): OAuthRefusal {
  return { status, error, description };
}

export function isRefusal(outcome: OAuthOutcome): outcome is OAuthRefusal {
  return "error" in outcome;
}

/** Waiting is no failure: who asks again and again for a device is not counted as one who guesses. */
export function isFailure({ error }: OAuthRefusal): boolean {
  return error !== "authorization_pending" && error !== "slow_down" && error !== "temporarily_unavailable";
}
