-- gameops: phase=expand reversible=lossy

-- Up Migration
create table discoveries (
  id bigint generated always as identity primary key,
  player_id text not null check (length(player_id) between 1 and 100),
  player_name text not null,
  region text not null,
  what text not null,
  idempotency_key text not null,
  created_at timestamptz not null default now(),
  -- A request that is sent again is stored once; keys are a player's own, so nobody can take another's.
  constraint discoveries_once unique (player_id, idempotency_key)
);

-- Down Migration
drop table discoveries;
