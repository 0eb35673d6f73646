#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Compares what libssm.so and ssm.h promise with what they promised in an earlier revision. Fails where a program that was
# compiled then would not run now.
#
#   .ci/abi.sh [REVISION]     the last tag, where none is named
set -euo pipefail
cd "$(dirname "$0")/.."

was=${1:-$(git describe --tags --abbrev=0 2>/dev/null || true)}
if [ -z "$was" ]; then
    echo "There is no release yet that this one could differ from: name a revision."
    exit
fi
folder=build/abi
rm -rf "$folder"
mkdir -p "$folder/source"
git archive "$was" | tar --extract --directory "$folder/source"
library() { # SOURCE BUILD
    cmake -G Ninja -S "$1" -B "$2" -DSSM_TESTS=OFF -DSSM_EXAMPLES=OFF -DCMAKE_BUILD_TYPE=Debug >"$2.log"
    cmake --build "$2" --target ssm >>"$2.log"
}
library "$folder/source" "$folder/was"
library . "$folder/is"
# Only what ssm.h shows; what was added harms nobody.
abidiff --no-added-syms --drop-private-types --headers-dir1 "$folder/source/ssm/src" --headers-dir2 ssm/src \
    "$folder/was/libssm.so" "$folder/is/libssm.so" || {
    echo "Programs that were compiled with $was may not run with this library. New fields at the end of options are the" >&2
    echo "exception: their functions copy what the caller has (ssm/src/platform/options.h)." >&2
    exit 1
}
