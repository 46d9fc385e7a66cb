-- gameops: phase=expand reversible=lossy

-- Up Migration
-- Null in what was found before there were tiles, and by replicas of the release before.
alter table discoveries
  add column tile_x smallint,
  add column tile_y smallint;

-- Whoever explores a tile first makes its discovery.
create unique index discoveries_tile on discoveries (region, tile_x, tile_y) where tile_x is not null;

-- Down Migration
drop index discoveries_tile;
alter table discoveries
  drop column tile_x,
  drop column tile_y;
