#!/bin/sh
# Lays out the root of a container image: the program, the libraries that it is linked with, the authorities of certificates, a user,
# and the folders that it writes to. Nothing else: no shell, no package manager.
#
#   rootfs.sh PROGRAM FOLDER
set -eu
program=$1
root=$2
# Of nobody on the host; the same as in other images without a shell.
id=65532

install -D -m 0755 "$program" "$root/usr/bin/turnserver"
ldd "$program" | sed -n -e 's|.*=> \(/[^ ]*\) (.*|\1|p' -e 's|^[[:space:]]*\(/[^ ]*\) (.*|\1|p' | while read -r library; do
    install -D -m 0755 "$library" "$root$library"
done
# For databases and services of users over TLS.
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
echo "turnserver:x:$id:$id:STUN/TURN relay server:/var/lib/turnserver:/sbin/nologin" > "$root/etc/passwd"
echo "turnserver:x:$id:" > "$root/etc/group"
echo "hosts: files dns" > "$root/etc/nsswitch.conf"
# For the configuration and secrets; for the management socket and what the server keeps.
install -d -m 0755 "$root/etc/turnserver"
install -d -m 0700 -o $id -g $id "$root/run/turnserver" "$root/var/lib/turnserver"
