#!/usr/bin/env bash
# Fuzz the extensions and the inflater, guided by coverage: libFuzzer, with the extensions compiled
# for AddressSanitizer and UndefinedBehaviorSanitizer. Everything made lies in build/fuzz.
#
#   tools/fuzz.sh [TARGET...]       run targets (all of tests/fuzz/corpus), WEIR_FUZZ_RUNS each
#   tools/fuzz.sh TARGET FILE       run one input, such as a find in build/fuzz/finds
#
# WEIR_SEED=n repeats a run from the same corpus; what a run adds to build/fuzz/corpus guides the
# next one. A find is made smaller by libFuzzer's option -minimize_crash=1 in WEIR_FUZZ_OPTIONS.
set -eu
cd "$(dirname "$0")/.."

runs=${WEIR_FUZZ_RUNS:-2500000}
seed=${WEIR_SEED:-$RANDOM$RANDOM}
# libFuzzer takes 32 bits, and chooses its own seed for 0.
seed=$((seed % 4294967295 + 1))
input_bytes_max=4096
input_s_max=10
memory_mib_max=2048

root=$PWD
made=$root/build/fuzz
python=$root/.venv/bin/python
sanitize=address,undefined

say() { printf 'fuzz: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

find_clang() {
    command -v clang >/dev/null || tools/packages.sh clang
    command -v clang >/dev/null ||
        fail "no clang, which this needs and nothing else does; on Debian: apt-get install clang"
    local runtime
    runtime=$(clang --print-file-name=libclang_rt.fuzzer-"$(uname -m)".a)
    [ -e "$runtime" ] || tools/packages.sh "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
    [ -e "$(clang --print-file-name=libclang_rt.fuzzer-"$(uname -m)".a)" ] ||
        fail "clang has no libFuzzer; on Debian: apt-get install libclang-rt-dev"
}

ask() { "$python" -c "import sys, sysconfig, numpy; print($1)"; }

fingerprint() {
    { clang --version; ask 'sys.version, sys.prefix'
      cat tools/fuzz.sh tests/fuzz/driver.c gateway/otlp/*.c
    } | sha256sum
}

build() {
    local wanted
    wanted=$(fingerprint)
    [ -f "$made/stamp" ] && [ "$(cat "$made/stamp")" = "$wanted" ] && return
    say "building with $(clang --version | head -n 1)"
    rm -rf "$made/modules" "$made/stamp"
    mkdir -p "$made"
    local name suffix modules=$made/modules/gateway/otlp
    mkdir -p "$modules"
    suffix=$(ask 'sysconfig.get_config_var("EXT_SUFFIX")')
    # The C files are those that `make build` has just made the ordinary extensions of.
    for name in kernel wire; do
        clang -shared -fPIC -O2 -g -fno-omit-frame-pointer -w -fwrapv -DWEIR_EXACT_BUFFERS=1 \
            -fsanitize=fuzzer-no-link,$sanitize -fno-sanitize-recover=all \
            -DNPY_NO_DEPRECATED_API=NPY_2_0_API_VERSION -I"$(ask 'numpy.get_include()')" \
            -I"$(ask 'sysconfig.get_path("include")')" "gateway/otlp/$name.c" \
            -o "$modules/$name$suffix" || fail "the extension $name does not compile"
    done
    local libraries=
    libraries='"-L{LIBDIR} -L{LIBPL} -Wl,-rpath,{LIBDIR} -lpython{LDVERSION} {LIBS} {SYSLIBS}"'
    read -ra libraries <<<"$(ask "$libraries.format(**sysconfig.get_config_vars())")"
    local watch
    for watch in "" ",$sanitize"; do
        clang -O1 -g -Wall -Wextra -fsanitize="fuzzer$watch" -fno-sanitize-recover=all -rdynamic \
            -I"$(ask 'sysconfig.get_path("include")')" tests/fuzz/driver.c \
            -o "$made/driver${watch:+-watched}" "${libraries[@]}" || fail "no driver"
    done
    printf '%s\n' "$wanted" >"$made/stamp"
}

drive() { # TARGET, then what libFuzzer takes
    local target=$1 driver=driver-watched modules=$made/modules traced=
    shift
    # What is plain Python has its lines as coverage, and nothing that a sanitizer could watch.
    if [ "$target" = inflate ]; then
        driver=driver modules= traced=gateway/receive/inflate.py
    fi
    # Leaks are found by memory_mib_max: CPython itself does not free what it holds at exit. Short
    # call stacks and little filling make the many small blocks of CPython cheap.
    local watch=detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=16
    watch+=:malloc_context_size=3:max_malloc_fill_size=64
    # shellcheck disable=SC2086
    env PYTHONPATH="$root" PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 OPENBLAS_NUM_THREADS=1 \
        WEIR_FUZZ_PYTHON="$python" WEIR_FUZZ_MODULES="$modules" \
        WEIR_FUZZ_TARGET="$target" WEIR_FUZZ_TRACED="$traced" \
        ASAN_OPTIONS="$watch" UBSAN_OPTIONS=print_stacktrace=1 \
        "$made/$driver" -timeout=$input_s_max -rss_limit_mb=$memory_mib_max \
        -artifact_prefix="$made/finds/$target-" ${WEIR_FUZZ_OPTIONS:-} "$@"
}

# libFuzzer's last status line: "#1500000 DONE cov: 812 ft: 3120 corp: 512/80Kb ... exec/s: 20000".
# Edges are those of both extensions, with the code that Cython makes for their import; features are
# edges and how often they were taken.
report() { # TARGET LOG FAILED
    awk -v target="$1" -v crashes="$3" '
        /^INFO: Loaded [0-9]+ modules/ { edges = $5; gsub(/[^0-9]/, "", edges) }
        /^#[0-9]+.*cov: / { runs = substr($1, 2)
            for (i = 2; i < NF; i++) { if ($i == "cov:") covered = $(i + 1)
                if ($i == "ft:") features = $(i + 1); if ($i == "exec/s:") speed = $(i + 1) } }
        END { printf "fuzz: %-9s %d runs, %d exec/s, ", target, runs, speed
            if (target != "inflate") printf "%d of %d edges, ", covered, edges
            printf "%d features, %d crashes\n", features, crashes }' "$2"
}

run() { # TARGET
    local target=$1 log=$made/$1.log crashes=0
    mkdir -p "$made/corpus/$target" "$made/finds"
    drive "$target" -runs="$runs" -seed="$seed" -max_len=$input_bytes_max -print_final_stats=1 \
        "$made/corpus/$target" "tests/fuzz/corpus/$target" >"$log" 2>&1 || crashes=1
    report "$target" "$log" "$crashes"
    if [ "$crashes" = 1 ]; then
        # From what was found to its call stack; the rest stands in the log.
        awk '/ERROR: |runtime error: |^driver: / { found = 1 } found && printed++ < 40' "$log" >&2
        say "see build/fuzz/$target.log"
        sed -n 's/.*Test unit written to /fuzz: the input is /p' "$log"
        return 1
    fi
}

find_clang
build
if [ $# = 2 ] && [ -f "$2" ]; then
    mkdir -p "$made/finds"
    drive "$1" "$2"
    exit
fi
[ $# -gt 0 ] || set -- $(cd tests/fuzz/corpus && ls)
seed_given=$((seed - 1))
say "seed $seed_given (repeat with WEIR_SEED=$seed_given), $runs runs each, sanitizers $sanitize"
failed=0
for target in "$@"; do
    run "$target" || failed=1
done
[ "$failed" = 0 ] || fail "a target failed; repeat its input with tools/fuzz.sh TARGET FILE"
