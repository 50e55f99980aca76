// People, groups, their sessions and the sign-ins under way: the statements that make the tables, and the tables as types.

import type { ColumnType } from "kysely";

/** RFC 3339 text in UTC on both ways. */
type Timestamp = ColumnType<string, string, string>;

export const peopleStatements: readonly string[] = [
  `create table people (
    principal_id uuid primary key references principals on delete cascade, issuer text not null, subject text not null,
    user_name text not null, last_sign_in_at timestamptz not null, disabled_at timestamptz, unique (issuer, subject))`,
  `create table groups (
    group_id uuid primary key, name text not null, claim_value text unique, created_at timestamptz not null)`,
  `create table group_members (
    group_id uuid not null references groups on delete cascade, principal_id uuid not null references principals on delete cascade,
    primary key (group_id, principal_id))`,
  `create index group_members_by_principal on group_members (principal_id)`,
  `create table sessions (
    session_id uuid primary key, principal_id uuid not null references principals on delete cascade, client_id uuid not null,
    claimed_groups text[] not null, provider_token bytea, started_at timestamptz not null, ends_at timestamptz not null,
    ended_at timestamptz, end_reason text)`,
  `create index sessions_by_principal on sessions (principal_id, started_at desc)`,
  `create index sessions_by_end on sessions (ends_at)`,
  `create table refresh_tokens (
    digest text primary key, session_id uuid not null references sessions on delete cascade, made_at timestamptz not null,
    used_at timestamptz)`,
  `create index refresh_tokens_by_session on refresh_tokens (session_id)`,
  `create table sign_ins (
    sign_in_id uuid primary key, kind text not null, client_id uuid not null, scope text not null, redirect_uri text, response_mode text,
    client_state text, client_nonce text, code_challenge text, asked_from text not null, browser_digest text,
    user_code_digest text unique, device_code_digest text unique, polled_at timestamptz,
    provider_state_digest text unique, provider_secrets bytea,
    session_id uuid references sessions on delete cascade, state text not null, code_digest text unique,
    expires_at timestamptz not null)`,
  `create index sign_ins_by_end on sign_ins (expires_at)`,
  `create table local_account (
    only_one boolean primary key default true check (only_one), principal_id uuid not null references principals on delete cascade,
    secret_hash text not null, kind text not null, made_at timestamptz not null, expires_at timestamptz not null,
    used_at timestamptz, ended_at timestamptz, end_reason text)`,
];

interface PersonTable {
  principal_id: string;
  issuer: string;
  subject: string;
  user_name: string;
  last_sign_in_at: Timestamp;
  disabled_at: Timestamp | null;
}

interface GroupTable {
  group_id: string;
  name: string;
  claim_value: string | null;
  created_at: Timestamp;
}

interface GroupMemberTable {
  group_id: string;
  principal_id: string;
}

interface SessionTable {
  session_id: string;
  principal_id: string;
  client_id: string;
  claimed_groups: readonly string[];
  provider_token: Uint8Array | null;
  started_at: Timestamp;
  ends_at: Timestamp;
  ended_at: Timestamp | null;
  end_reason: string | null;
}

interface RefreshTokenTable {
  digest: string;
  session_id: string;
  made_at: Timestamp;
  used_at: Timestamp | null;
}

export interface SignInTable {
  sign_in_id: string;
  kind: "browser" | "device";
  client_id: string;
  scope: string;
  redirect_uri: string | null;
  response_mode: string | null;
  client_state: string | null;
  client_nonce: string | null;
  code_challenge: string | null;
  asked_from: string;
  browser_digest: string | null;
  user_code_digest: string | null;
  device_code_digest: string | null;
  polled_at: Timestamp | null;
  provider_state_digest: string | null;
  provider_secrets: Uint8Array | null;
  session_id: string | null;
  state: "asked" | "proved" | "granted" | "refused" | "redeemed";
  code_digest: string | null;
  expires_at: Timestamp;
}

interface LocalAccountTable {
  only_one: boolean;
  principal_id: string;
  secret_hash: string;
  kind: "firstHour" | "breakGlass";
  made_at: Timestamp;
  expires_at: Timestamp;
  used_at: Timestamp | null;
  ended_at: Timestamp | null;
  end_reason: string | null;
}

export interface PeopleTables {
  people: PersonTable;
  groups: GroupTable;
  group_members: GroupMemberTable;
  sessions: SessionTable;
  refresh_tokens: RefreshTokenTable;
  sign_ins: SignInTable;
  local_account: LocalAccountTable;
}
