#!/usr/bin/env bash
# Install the npm packages of tests/clients into build/clients, once for each lock file; where that
# is not possible say why in one line and succeed: the tests that need them skip with this reason.
set -eu
cd "$(dirname "$0")/.."

source=tests/clients
target=build/clients
why=$target/missing

say() { printf 'clients: %s\n' "$*" >&2; }
give_up() {
    say "$*"
    printf '%s\n' "$*" >"$why"
    exit 0
}

# The lock belongs to the open file, so that it holds until this script ends.
mkdir -p "$target"
exec 9>build/clients.lock
.venv/bin/python -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'

# The lock file is the last thing that an installation puts into place.
if cmp -s "$source/package-lock.json" "$target/installed.json"; then
    exit 0
fi
rm -f "$why" "$target/installed.json"
have_node() { command -v node >/dev/null && command -v npm >/dev/null; }
have_node || tools/packages.sh nodejs npm
if ! have_node; then
    give_up "node and npm are missing; Debian packages: nodejs npm"
fi
node -e 'const [a, b] = process.versions.node.split(".").map(Number);
         process.exit(a > 20 || (a === 20 && b >= 6) || (a === 18 && b >= 19) ? 0 : 1)' ||
    give_up "node $(node --version) is too old; 18.19, 20.6 or newer is wanted"

say "installing the stock OpenTelemetry SDK for JavaScript (once)"
cp "$source/package.json" "$source/package-lock.json" "$target/"
# The packages work without the scripts that some would run at installation.
if ! (cd "$target" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error \
    --fetch-retries=1 --fetch-timeout=60000) >"$target/npm.log" 2>&1; then
    give_up "npm could not install the packages of $source: $(grep -m 1 . "$target/npm.log")"
fi
cp "$source/package-lock.json" "$target/installed.json"
