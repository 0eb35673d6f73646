#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Compares what libssm.so and ssm.h promise with what they promised in the last release, which is in cmake/ssm.abi. Fails
# where a program that was compiled then would not run now.
#
#   .ci/abi.sh             with the last release
#   .ci/abi.sh REVISION    with that commit
#   .ci/abi.sh --record    nothing: writes cmake/ssm.abi anew, with a release
set -euo pipefail
cd "$(dirname "$0")/.."

folder=build/abi
record=cmake/ssm.abi
library() { # SOURCE BUILD: a library whose debug information tells its types
    cmake -G Ninja -S "$1" -B "$2" -DSSM_TESTS=OFF -DSSM_EXAMPLES=OFF -DCMAKE_BUILD_TYPE=Debug >"$2.log"
    cmake --build "$2" --target ssm >>"$2.log"
}
describe() { # SOURCE LIBRARY FILE
    abidw --exported-interfaces-only --no-corpus-path --no-comp-dir-path \
        --suppressions cmake/abi.suppr --out-file "$3" "$2"
    sed -i "s|$(realpath "$1")/||; s|cmake/\.\./||" "$3"
}
compare() { # WAS: what was added harms nobody
    abidiff --no-added-syms --suppressions cmake/abi.suppr "$1" "$folder/is/libssm.so"
}
# A comparison that would find nothing is worth nothing: one with a change of that kind fails. $1: what; $2: sed's command.
seen() {
    sed "$2" "$record" >"$folder/changed.abi"
    local status=0
    compare "$folder/changed.abi" >"$folder/changed.log" 2>&1 || status=$?
    if cmp --silent "$record" "$folder/changed.abi" || { [ $status -ne 4 ] && [ $status -ne 12 ]; }; then
        echo "abidiff does not see $1: exit status $status" >&2
        exit 1
    fi
}

mkdir -p "$folder"
library . "$folder/is"
if [ "${1:-}" = --record ]; then
    describe . "$folder/is/libssm.so" "$record"
    exit
fi
was=$record
if [ $# -gt 0 ]; then
    rm -rf "$folder/source" "$folder/was"
    mkdir "$folder/source"
    git archive "$1" | tar --extract --directory "$folder/source"
    library "$folder/source" "$folder/was"
    was=$folder/was.abi
    describe "$folder/source" "$folder/was/libssm.so" "$was"
fi
compare "$was" || {
    echo "Programs that were compiled with ${1:-the last release} may not run with this library. New fields at the end of" >&2
    echo "options are the exception: their functions copy what the caller has (ssm/src/platform/options.h)." >&2
    exit 1
}
if [ $# -eq 0 ]; then
    seen "that a function is gone" 's/ssm_alloc_many/ssm_alloc_more/g'
    seen "that a struct has another size" "/class-decl name='ssm_packet' /s/size-in-bits='320'/size-in-bits='256'/"
fi
