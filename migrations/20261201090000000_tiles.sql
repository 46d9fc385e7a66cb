-- gameops: phase=expand reversible=lossy

-- Up Migration
-- Null in what was found before there were tiles, and by replicas of the release before.
alter table discoveries
  add column tile_x smallint,
  add column tile_y smallint;

-- Down Migration
alter table discoveries
  drop column tile_x,
  drop column tile_y;
