#!/usr/bin/env bash
# Install Debian packages when root, or sudo without a password, allows it; otherwise name them in
# one line and succeed: what needs them says so itself. Services that come with a package are never
# started.
set -eu

say() { printf 'packages: %s\n' "$*" >&2; }

installed() { [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>&1)" = installed ]; }

if ! command -v apt-get >/dev/null; then
    say "this system has no apt-get; wanted if you can: $*"
    exit 0
fi
missing=()
for package in "$@"; do
    installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" = 0 ]; then
    become=()
elif sudo -n true 2>/dev/null; then
    become=(sudo -n)
else
    say "not installed: ${missing[*]}; to have them: sudo apt-get install ${missing[*]}"
    exit 0
fi

install() {
    "${become[@]}" env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq \
        --no-install-recommends -o DPkg::Lock::Timeout=120 "${missing[@]}" >/dev/null
}

# Under another init the run level keeps services down; under systemd a unit that is masked for this
# boot is not started by its package. Afterwards it is unmasked and disabled.
units=("${missing[@]/%/.service}")
systemd() {
    if [ -d /run/systemd/system ]; then
        "${become[@]}" systemctl --quiet "$@" "${units[@]}" 2>/dev/null || true
    fi
}

say "installing ${missing[*]}"
systemd --runtime mask
if ! install 2>/dev/null; then
    "${become[@]}" apt-get update -qq >/dev/null || true
    install || say "could not install ${missing[*]}"
fi
systemd --runtime unmask
systemd disable
