#!/bin/sh
# Runs before any package is unpacked: fixes the numeric users, because volumes outlive images and a package would
# take whatever number is free. 101 is the number the official Nginx image runs as, 999 the one of PostgreSQL.
set -eu
root=$1
account() {
  printf '%s:x:%s:\n' "$1" "$2" >>"$root/etc/group"
  printf '%s:x:%s:%s::%s:/usr/sbin/nologin\n' "$1" "$2" "$2" "$3" >>"$root/etc/passwd"
  printf '%s:!*:19000::::::\n' "$1" >>"$root/etc/shadow"
}
touch "$root/etc/shadow"
chmod 0640 "$root/etc/shadow"
account nginx 101 /nonexistent
account postgres 999 /var/lib/postgresql
account redis 998 /data
