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
# What licences ask for: ours, those of what the program contains, and those of the other packages that something here is from.
sources=$(dirname "$0")/../..
install -d -m 0755 "$root/usr/share/doc/turnserver"
install -m 0644 "$sources/LICENSE" "$sources/THIRD-PARTY.txt" "$root/usr/share/doc/turnserver"
add_licences() {
    # Where /lib is a link to /usr/lib, dpkg may know a file by either name.
    package=$(dpkg-query --search "$1" 2>/dev/null || dpkg-query --search "/usr$1")
    package=${package%%:*}
    install -D -m 0644 "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/copyright"
    grep -o '/usr/share/common-licenses/[A-Z][A-Za-z0-9.-]*[A-Za-z0-9]' "/usr/share/doc/$package/copyright" | sort -u | while read -r text; do
        [ ! -f "$text" ] || install -D -m 0644 "$text" "$root$text"
    done
}
ldd "$program" | sed -n -e 's|.*=> \(/[^ ]*\) (.*|\1|p' -e 's|^[[:space:]]*\(/[^ ]*\) (.*|\1|p' | while read -r library; do
    install -D -m 0755 "$library" "$root$library"
    add_licences "$library"
done
# For databases and services of users over TLS.
install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
add_licences /usr/sbin/update-ca-certificates
echo "turnserver:x:$id:$id:STUN/TURN relay server:/var/lib/turnserver:/sbin/nologin" > "$root/etc/passwd"
echo "turnserver:x:$id:" > "$root/etc/group"
echo "hosts: files dns" > "$root/etc/nsswitch.conf"
# For the configuration and secrets; for the management socket and what the server keeps.
install -d -m 0755 "$root/etc/turnserver"
install -d -m 0700 -o $id -g $id "$root/run/turnserver" "$root/var/lib/turnserver"
