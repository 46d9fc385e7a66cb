#!/bin/sh
# Runs after the packages are installed: makes the root file system behave like the official images, and small.
set -eu
root=$1
recipe=$(dirname "$0")

install -D -m 0755 "$recipe/docker-entrypoint.sh" "$root/usr/local/bin/docker-entrypoint.sh"

# The package makes a cluster of its own; a volume mounted here must begin empty and belong to postgres.
rm -rf "$root/var/lib/postgresql" "$root"/etc/postgresql/*
install -d -m 0755 -o 999 -g 999 "$root/var/lib/postgresql"
# By its real path: /var/run is an absolute link, which would lead out of the root file system and onto this machine.
install -d -m 3777 -o 999 -g 999 "$root/run/postgresql"
install -d -m 0755 -o 998 -g 998 "$root/data"

# Nginx opens its compiled-in log before it reads any configuration.
install -d -m 0755 -o 101 -g 101 "$root/var/log/nginx" "$root/var/cache/nginx"
ln -sf /dev/stdout "$root/var/log/nginx/access.log"
ln -sf /dev/stderr "$root/var/log/nginx/error.log"

rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/log/apt
rm -f "$root"/var/log/dpkg.log "$root"/var/log/bootstrap.log "$root"/var/log/alternatives.log
# One identity for every container of this image would be no identity.
: >"$root/etc/machine-id"
