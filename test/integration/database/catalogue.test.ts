/** What tells two schemas apart, and what must not: a table of both, each row on a real server. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { catalogueOf, differenceOf, fingerprintOf } from '../../../src/database/server/catalogue.ts';
import {
  type DatabaseEndpoint,
  databaseEndpoint,
  withClient,
} from '../../../src/database/server/connection.ts';
import { openTestProject, type TestProject } from '../../support/site/accessories.ts';

let on: TestProject;
let endpoint: DatabaseEndpoint;

beforeAll(async () => {
  on = await openTestProject('catalogue');
  await on.ensure();
  endpoint = await databaseEndpoint(on.engine, on.project, on.settings);
});
afterAll(() => on?.remove());

/** One of each, so that every row below has something to change. */
const base = `
  CREATE SCHEMA shop;
  CREATE TYPE mood AS ENUM ('calm', 'wild');
  CREATE TYPE place AS (x int, y int);
  CREATE TYPE span AS RANGE (subtype = float8);
  CREATE DOMAIN score AS int DEFAULT 0 CONSTRAINT not_below CHECK (VALUE >= 0);
  CREATE TABLE players (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, points int DEFAULT 1,
    twice int GENERATED ALWAYS AS (points * 2) STORED, mood mood);
  CREATE TABLE finds (id serial, player bigint REFERENCES players, what varchar(20) CHECK (what <> ''), at timestamptz);
  CREATE INDEX finds_what ON finds (what);
  CREATE UNIQUE INDEX finds_id ON finds (id);
  ALTER TABLE finds ALTER id SET NOT NULL;
  CREATE TABLE moves (day date NOT NULL, n int) PARTITION BY RANGE (day);
  CREATE TABLE moves_26 PARTITION OF moves FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
  CREATE INDEX moves_n ON ONLY moves (n);
  CREATE INDEX moves_26_n ON moves_26 (n);
  CREATE TABLE parent (a int); CREATE TABLE child () INHERITS (parent);
  CREATE VIEW best AS SELECT name FROM players WHERE points > 5;
  CREATE MATERIALIZED VIEW best_now AS SELECT name FROM players WHERE points > 5;
  CREATE SEQUENCE tickets;
  CREATE FUNCTION double(i int) RETURNS int LANGUAGE sql AS 'SELECT i * 2';
  CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
  CREATE FUNCTION seen() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
  CREATE FUNCTION mood_number(mood) RETURNS int LANGUAGE sql AS 'SELECT 1';
  CREATE AGGREGATE total (int) (sfunc = int4pl, stype = int, initcond = '0');
  CREATE OPERATOR === (leftarg = int, rightarg = int, function = int4eq);
  CREATE COLLATION plain (provider = libc, locale = 'C');
  CREATE TRIGGER touched BEFORE UPDATE ON players FOR EACH ROW EXECUTE FUNCTION touch();
  CREATE RULE quiet AS ON DELETE TO finds DO INSTEAD NOTHING;
  CREATE STATISTICS of_finds (dependencies) ON id, what FROM finds;
  ALTER TABLE finds ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON finds FOR SELECT USING (player > 0);
  CREATE PUBLICATION feed FOR TABLE players;
  CREATE TEXT SEARCH CONFIGURATION words (COPY = simple);
  CREATE FOREIGN DATA WRAPPER far OPTIONS (debug 'true');
  CREATE SERVER there FOREIGN DATA WRAPPER far OPTIONS (host 'a');
  CREATE FOREIGN TABLE away (id int) SERVER there OPTIONS (name 'x');`;

const inTransaction = <T>(use: (client: pg.Client) => Promise<T>): Promise<T> =>
  withClient(endpoint, async (client) => {
    await client.query('BEGIN');
    try {
      return await use(client);
    } finally {
      await client.query('ROLLBACK');
    }
  });

const differenceAfter = (change: string, first = base) =>
  inTransaction(async (client) => {
    await client.query(first);
    const before = await catalogueOf(client);
    await client.query(change);
    const after = await catalogueOf(client);
    const { missing, extra } = differenceOf(before.lines, after.lines);
    expect(fingerprintOf(before) === fingerprintOf(after)).toBe(missing.length + extra.length === 0);
    return [...missing.map((line) => `- ${line}`), ...extra.map((line) => `+ ${line}`)];
  });

describe('a schema counts as different', () => {
  it.each([
    ['with another schema', 'CREATE SCHEMA lobby'],
    ['without an extension', 'DROP EXTENSION plpgsql CASCADE'],
    ['with another table', 'CREATE TABLE shop.items (id int)'],
    ['without a table', 'DROP TABLE finds'],
    ['with a table of another name', 'ALTER TABLE finds RENAME TO found'],
    ['with a table in another schema', 'ALTER TABLE finds SET SCHEMA shop'],
    ['with an unlogged table', 'ALTER TABLE finds SET UNLOGGED'],
    ['with row security', 'ALTER TABLE players ENABLE ROW LEVEL SECURITY'],
    ['with forced row security', 'ALTER TABLE finds FORCE ROW LEVEL SECURITY'],
    ['with another replica identity', 'ALTER TABLE finds REPLICA IDENTITY FULL'],
    ['with a replica identity by index', 'ALTER TABLE finds REPLICA IDENTITY USING INDEX finds_id'],
    ['with storage parameters', 'ALTER TABLE finds SET (fillfactor = 70)'],
    [
      'with storage parameters of its long values',
      'ALTER TABLE players SET (toast.autovacuum_enabled = off)',
    ],
    ['with a typed table', 'CREATE TABLE spots OF place'],
    ['with an inheritance that ended', 'ALTER TABLE child NO INHERIT parent'],
    ['with a partition that was detached', 'ALTER TABLE moves DETACH PARTITION moves_26'],
    [
      'with other bounds of a partition',
      `ALTER TABLE moves DETACH PARTITION moves_26; ALTER TABLE moves ATTACH PARTITION moves_26 FOR VALUES FROM ('2026-01-01') TO ('2028-01-01')`,
    ],
    [
      'with a partition of another table',
      `CREATE TABLE moves_too (LIKE moves) PARTITION BY RANGE (day); ALTER TABLE moves DETACH PARTITION moves_26;
       ALTER TABLE moves_too ATTACH PARTITION moves_26 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')`,
    ],
    ['with another foreign table', `ALTER FOREIGN TABLE away OPTIONS (SET name 'y')`],
    ['with another column', 'ALTER TABLE finds ADD extra int'],
    ['without a column', 'ALTER TABLE finds DROP at'],
    ['with a column of another name', 'ALTER TABLE finds RENAME at TO seen_at'],
    ['with a column of another type', 'ALTER TABLE finds ALTER at TYPE timestamp'],
    ['with a column of another length', 'ALTER TABLE finds ALTER what TYPE varchar(21)'],
    ['with a nullable column', 'ALTER TABLE players ALTER name DROP NOT NULL'],
    ['with a column that must have a value', 'ALTER TABLE finds ALTER at SET NOT NULL'],
    ['with another default', 'ALTER TABLE players ALTER points SET DEFAULT 2'],
    ['without a default', 'ALTER TABLE players ALTER points DROP DEFAULT'],
    ['with another identity', 'ALTER TABLE players ALTER id SET GENERATED BY DEFAULT'],
    ['with a generated column that is plain', 'ALTER TABLE players ALTER twice DROP EXPRESSION'],
    ['with another collation', 'ALTER TABLE finds ALTER what TYPE varchar(20) COLLATE "C"'],
    ['with another storage of a column', 'ALTER TABLE players ALTER name SET STORAGE EXTERNAL'],
    ['with a compressed column', 'ALTER TABLE players ALTER name SET COMPRESSION pglz'],
    ['with other statistics of a column', 'ALTER TABLE players ALTER name SET STATISTICS 500'],
    ['with options of a column', 'ALTER TABLE players ALTER name SET (n_distinct = 5)'],
    ['without a primary key', 'ALTER TABLE players DROP CONSTRAINT players_pkey CASCADE'],
    ['without a foreign key', 'ALTER TABLE finds DROP CONSTRAINT finds_player_fkey'],
    [
      'with a foreign key that cascades deletes',
      'ALTER TABLE finds DROP CONSTRAINT finds_player_fkey; ALTER TABLE finds ADD CONSTRAINT finds_player_fkey FOREIGN KEY (player) REFERENCES players ON DELETE CASCADE',
    ],
    ['with another check', 'ALTER TABLE players ADD CHECK (points < 100)'],
    [
      'with a check that was never proven',
      'ALTER TABLE players ADD CONSTRAINT few CHECK (points < 100) NOT VALID',
    ],
    [
      'with a constraint of another name',
      'ALTER TABLE finds RENAME CONSTRAINT finds_what_check TO some_what',
    ],
    ['with a deferrable constraint', 'ALTER TABLE finds ALTER CONSTRAINT finds_player_fkey DEFERRABLE'],
    ['with another index', 'CREATE INDEX ON finds (at)'],
    ['without an index', 'DROP INDEX finds_what'],
    ['with an index of another order', 'DROP INDEX finds_what; CREATE INDEX finds_what ON finds (what DESC)'],
    [
      'with a partial index',
      `DROP INDEX finds_what; CREATE INDEX finds_what ON finds (what) WHERE what <> 'x'`,
    ],
    ['with a unique index', 'DROP INDEX finds_what; CREATE UNIQUE INDEX finds_what ON finds (what)'],
    [
      'with an index that is not valid',
      `UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'finds_what'::regclass`,
    ],
    ['with a table that is sorted by an index', 'ALTER TABLE finds CLUSTER ON finds_what'],
    ['with an index that became part of another', 'ALTER INDEX moves_n ATTACH PARTITION moves_26_n'],
    ['with another sequence', 'CREATE SEQUENCE coins'],
    ['with another step of a sequence', 'ALTER SEQUENCE tickets INCREMENT 10'],
    ['with another end of a sequence', 'ALTER SEQUENCE tickets MAXVALUE 99'],
    ['with another start of a sequence', 'ALTER SEQUENCE tickets START 7'],
    ['with a sequence that cycles', 'ALTER SEQUENCE tickets CYCLE'],
    ['with another cache of a sequence', 'ALTER SEQUENCE tickets CACHE 20'],
    ['with a sequence that a column owns', 'ALTER SEQUENCE tickets OWNED BY players.points'],
    ['with another view', 'CREATE OR REPLACE VIEW best AS SELECT name FROM players WHERE points > 6'],
    ['with a view that has the rights of its reader', 'ALTER VIEW best SET (security_invoker = true)'],
    [
      'with another materialized view',
      'DROP MATERIALIZED VIEW best_now; CREATE MATERIALIZED VIEW best_now AS SELECT name FROM players',
    ],
    [
      'with another trigger',
      'CREATE TRIGGER too AFTER INSERT ON finds FOR EACH ROW EXECUTE FUNCTION touch()',
    ],
    ['with a trigger that is off', 'ALTER TABLE players DISABLE TRIGGER touched'],
    ['without a rule', 'DROP RULE quiet ON finds'],
    ['with a rule that is off', 'ALTER TABLE finds DISABLE RULE quiet'],
    ['with an event trigger', 'CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION seen()'],
    ['with another policy', 'CREATE POLICY other ON finds FOR INSERT WITH CHECK (player > 0)'],
    ['with a policy of another condition', 'ALTER POLICY own ON finds USING (player > 1)'],
    ['with a policy for others', 'ALTER POLICY own ON finds TO pg_monitor'],
    [
      'with a restrictive policy',
      'DROP POLICY own ON finds; CREATE POLICY own ON finds AS RESTRICTIVE FOR SELECT USING (player > 0)',
    ],
    [
      'with another body of a function',
      `CREATE OR REPLACE FUNCTION double(i int) RETURNS int LANGUAGE sql AS 'SELECT i + i'`,
    ],
    ['with a stable function', 'ALTER FUNCTION double(int) STABLE'],
    ['with a function that acts as its owner', 'ALTER FUNCTION double(int) SECURITY DEFINER'],
    [
      'with a function of the same name for others',
      `CREATE FUNCTION double(t text) RETURNS text LANGUAGE sql AS 'SELECT t || t'`,
    ],
    ['with a procedure', `CREATE PROCEDURE tidy() LANGUAGE sql AS 'SELECT 1'`],
    [
      'with another aggregate',
      `CREATE OR REPLACE AGGREGATE total (int) (sfunc = int4pl, stype = int, initcond = '1')`,
    ],
    ['with another value of an enum', `ALTER TYPE mood ADD VALUE 'sad'`],
    ['with a value of another name', `ALTER TYPE mood RENAME VALUE 'calm' TO 'quiet'`],
    [
      'with values of an enum in another order',
      `DROP TYPE mood CASCADE; CREATE TYPE mood AS ENUM ('wild', 'calm'); ALTER TABLE players ADD mood mood`,
    ],
    ['with another part of a composite type', 'ALTER TYPE place ADD ATTRIBUTE z int'],
    ['with another range', 'DROP TYPE span; CREATE TYPE span AS RANGE (subtype = int8)'],
    ['with another default of a domain', 'ALTER DOMAIN score SET DEFAULT 1'],
    ['with another check of a domain', 'ALTER DOMAIN score ADD CHECK (VALUE < 10)'],
    ['with a domain that must have a value', 'ALTER DOMAIN score SET NOT NULL'],
    ['without extended statistics', 'DROP STATISTICS of_finds'],
    ['with another operator', 'CREATE OPERATOR !== (leftarg = int, rightarg = int, function = int4ne)'],
    ['with a cast', 'CREATE CAST (mood AS int) WITH FUNCTION mood_number(mood)'],
    [
      'with another definition of a collation',
      `DROP COLLATION plain; CREATE COLLATION plain (provider = libc, locale = 'POSIX')`,
    ],
    ['with another publication', 'ALTER PUBLICATION feed SET TABLE finds'],
    ['with a publication of fewer events', `ALTER PUBLICATION feed SET (publish = 'insert')`],
    [
      'with another text search configuration',
      'ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword WITH english_stem',
    ],
    ['with another foreign server', `ALTER SERVER there OPTIONS (SET host 'b')`],
    ['with another foreign data wrapper', `ALTER FOREIGN DATA WRAPPER far OPTIONS (SET debug 'false')`],
  ])('%s', async (_what, change) => {
    expect(await differenceAfter(change)).not.toEqual([]);
  });
});

describe('a schema counts as the same', () => {
  it.each([
    ['when nothing happened', 'SELECT 1'],
    [
      'with other rows and other positions of sequences',
      `INSERT INTO players (name) VALUES ('ada'); SELECT nextval('tickets')`,
    ],
    ['after ANALYZE', 'ANALYZE players'],
    ['after its materialized view was refreshed', 'REFRESH MATERIALIZED VIEW best_now'],
    [
      'with another owner',
      'CREATE ROLE somebody; ALTER TABLE finds OWNER TO somebody; ALTER FUNCTION double(int) OWNER TO somebody',
    ],
    [
      'with other rights',
      'GRANT SELECT ON players TO PUBLIC; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC',
    ],
    [
      'with comments',
      `COMMENT ON TABLE players IS 'who plays'; COMMENT ON COLUMN finds.what IS 'x'; COMMENT ON SCHEMA shop IS 'y'; COMMENT ON INDEX finds_what IS 'z'`,
    ],
    [
      'with an index that was made anew, under another OID',
      'DROP INDEX finds_what; CREATE INDEX finds_what ON finds (what)',
    ],
    [
      'with its columns in another order',
      "ALTER TABLE finds DROP what CASCADE; ALTER TABLE finds ADD what varchar(20) CHECK (what <> ''); CREATE INDEX finds_what ON finds (what); CREATE STATISTICS of_finds (dependencies) ON id, what FROM finds",
    ],
    ['with a temporary table', 'CREATE TEMP TABLE mine (id int)'],
    [
      'with the ledger of gameops',
      "CREATE SCHEMA gameops; CREATE TABLE gameops.state (x int); CREATE FUNCTION gameops.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    ],
    [
      "with node-pg-migrate's table",
      'CREATE TABLE pgmigrations (id serial PRIMARY KEY, name varchar(255) NOT NULL, run_on timestamp NOT NULL)',
    ],
    ['seen by a role that owns nothing', 'CREATE ROLE looker; SET LOCAL ROLE looker'],
    ['seen from another search path', `SET LOCAL search_path = shop, public, pg_catalog`],
    [
      'with another login to a far server',
      `CREATE USER MAPPING FOR CURRENT_USER SERVER there OPTIONS (password 'x')`,
    ],
  ])('%s', async (_what, change) => {
    expect(await differenceAfter(change)).toEqual([]);
  });

  it('when it was made in another order', async () => {
    const parts = [
      'CREATE TABLE a (id int, x text)',
      'CREATE TABLE b (id int)',
      'CREATE INDEX i ON a (id)',
      'CREATE INDEX j ON a (x)',
    ];
    const madeIn = (order: (string | undefined)[]) =>
      inTransaction(async (client) => {
        await client.query(order.join(';'));
        return fingerprintOf(await catalogueOf(client));
      });
    const one = await madeIn(parts);
    const other = await madeIn([parts[1], parts[0], parts[3], parts[2]]);
    expect(one).toBe(other);
  });

  it('and reading it changes no setting of the connection, also when reading fails', async () => {
    await withClient(endpoint, async (client) => {
      const settings = async () =>
        (await client.query(`SELECT current_setting('search_path') AS path, current_setting('jit') AS jit`))
          .rows;
      const before = await settings();
      await catalogueOf(client);
      expect(await settings()).toEqual(before);
      await client.query('BEGIN; SET LOCAL statement_timeout = 1');
      await expect(catalogueOf(client)).rejects.toMatchObject({ code: '57014' });
      await client.query('ROLLBACK');
      expect(await settings()).toEqual(before);
    });
  });
});
