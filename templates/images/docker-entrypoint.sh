#!/bin/sh
# Entry point of the image built from Debian packages. For `postgres` it answers to the variables of the official
# image: PGDATA, POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD_FILE (or POSTGRES_PASSWORD). Anything else is run as it is.
# A new database is made beside PGDATA and renamed into place, so a kill at any moment leaves none or a whole one.
set -eu

fail() {
  printf 'docker-entrypoint: %s\n' "$1" >&2
  exit 1
}

# Names go into SQL and on command lines.
require_plain_name() {
  case $2 in
    '' | -* | *[!A-Za-z0-9_-]*) fail "$1 may hold letters, digits, _ and - only" ;;
  esac
}

password() {
  if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
    head -n 1 -- "$POSTGRES_PASSWORD_FILE"
  else
    printf '%s\n' "${POSTGRES_PASSWORD:-}"
  fi
}

make_database() {
  require_plain_name POSTGRES_USER "$POSTGRES_USER"
  require_plain_name POSTGRES_DB "$POSTGRES_DB"
  [ -n "$(password)" ] || fail 'set POSTGRES_PASSWORD_FILE: a database without a password is not made'
  if [ -e "$PGDATA" ] && ! rmdir -- "$PGDATA" 2>/dev/null; then
    fail "$PGDATA is a mount point, or holds files but no database; mount the volume at its parent"
  fi
  mkdir -p -- "$(dirname -- "$PGDATA")"
  fresh=$PGDATA.unfinished
  rm -rf -- "$fresh"

  # From 17 on PostgreSQL brings its own collation: an image with another C library can't change the order of indexes.
  case $(postgres --version) in
    *' 1'[0-6]'.'*) set -- --locale=C.UTF-8 ;;
    *) set -- --locale-provider=builtin --builtin-locale=C.UTF-8 --locale=C.UTF-8 ;;
  esac
  password | initdb --pgdata="$fresh" --username="$POSTGRES_USER" --pwfile=/dev/stdin --encoding=UTF8 \
    --auth-local=trust --auth-host=scram-sha-256 --no-instructions "$@"
  printf '\nhost all all all scram-sha-256\n' >>"$fresh/pg_hba.conf"
  printf "\nlisten_addresses = '*'\n" >>"$fresh/postgresql.conf"
  if [ "$POSTGRES_DB" != postgres ]; then
    printf 'CREATE DATABASE "%s"\n' "$POSTGRES_DB" |
      postgres --single -j -D "$fresh" -c log_min_messages=error postgres >/dev/null
  fi
  sync
  mv -T -- "$fresh" "$PGDATA"
}

if [ "${1:-}" = postgres ]; then
  : "${PGDATA:=/var/lib/postgresql/$(postgres --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')/docker}"
  : "${POSTGRES_USER:=postgres}"
  : "${POSTGRES_DB:=$POSTGRES_USER}"
  export PGDATA
  if [ "$(id -u)" = 0 ]; then
    mkdir -p -- "$(dirname -- "$PGDATA")"
    chown postgres:postgres "$(dirname -- "$PGDATA")"
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
  fi
  umask 077
  [ -s "$PGDATA/PG_VERSION" ] || make_database
fi
exec "$@"
