#!/usr/bin/env bash
# Create .venv, install the project with its tools and compile the kernels; do nothing when that has
# been done from the present sources. A lock lets two make targets start at the same moment.
set -eu
cd "$(dirname "$0")/.."

lock=.venv.lock
stamp=.venv/weir.stamp

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# A name on PATH may be a wrapper for a version that is not installed, and a distribution's Python
# may come without venv or headers. So each candidate is asked.
usable() {
    "$1" - <<'PY' >/dev/null 2>&1
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
import ensurepip, pathlib, sysconfig, venv
sys.exit(not (pathlib.Path(sysconfig.get_path("include")) / "Python.h").exists())
PY
}

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    local candidate
    for candidate in ${WEIR_PYTHON:-} python3.13 python3.12 python3.11 python3 /usr/bin/python3; do
        if usable "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# What the installed state depends on: the build's inputs, and where and by what it was made.
fingerprint() {
    {
        pwd
        "$python" -c 'import sys; print(sys.version)'
        find gateway -name '*.p[yx][xi]' | LC_ALL=C sort | xargs cat pyproject.toml setup.py
    } | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
}

if ! python=$(find_python); then
    if recent /usr/bin/python3; then
        tools/packages.sh python3-venv python3-dev
    fi
    python=$(find_python) ||
        fail "no Python 3.11 or newer with venv and C headers was found; install one" \
            "(on Debian: python3 python3-venv python3-dev) or name it: WEIR_PYTHON=/path/to/python3"
fi
command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null ||
    fail "no C compiler was found; on Debian: apt-get install gcc libc6-dev"

# The lock belongs to the open file, so that it holds until this script ends.
exec 9>"$lock"
"$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'

wanted=$(fingerprint)
# Every kernel has to be there: each .pyx beside its compiled module.
missing=$(find gateway -name '*.pyx' | while read -r source; do
    compgen -G "${source%.pyx}.*.so" >/dev/null || echo "$source"
done)
if [ -z "$missing" ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

rm -f "$stamp"
export PIP_DISABLE_PIP_VERSION_CHECK=1
if ! recent .venv/bin/python || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    say "creating .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi
say "installing the project and compiling its kernels (a minute or two the first time)"
# The build compares times of files, which say little after a checkout; so it starts from nothing.
find gateway \( -name '*.so' -o -name kernel.c -o -name wire.c \) -delete
.venv/bin/python -m pip install --quiet --editable '.[dev]'
printf '%s\n' "$wanted" >"$stamp"
say "ready"
