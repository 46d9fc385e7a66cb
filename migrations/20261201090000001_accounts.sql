-- gameops: phase=expand reversible=lossy

-- Up Migration
create table accounts (
  player_id text primary key check (length(player_id) between 1 and 100),
  name text not null,
  -- Names that differ in case only would be taken for each other.
  name_key text not null unique,
  -- With its own parameters in front, so that they can change without asking anybody for a password.
  password_hash text not null,
  created_at timestamptz not null default now()
);

create table refresh_tokens (
  -- SHA-256: who reads this table can't log in with it.
  token_hash bytea primary key,
  player_id text not null references accounts on delete cascade,
  -- One login. A token that is used twice was stolen once: all of its family end.
  family uuid not null,
  expires_at timestamptz not null,
  used_at timestamptz
);

create index refresh_tokens_family on refresh_tokens (family);
create index refresh_tokens_player on refresh_tokens (player_id);

-- Down Migration
drop table refresh_tokens;
drop table accounts;
