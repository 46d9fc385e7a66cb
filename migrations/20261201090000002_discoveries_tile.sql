-- gameops: phase=expand reversible=yes transaction=off

-- Up Migration
-- Whoever explores a tile first makes its discovery. "If not exists": it once came with the columns.
create unique index concurrently if not exists discoveries_tile
  on discoveries (region, tile_x, tile_y) where tile_x is not null;

-- Down Migration
drop index concurrently if exists discoveries_tile;
