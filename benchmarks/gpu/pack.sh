#!/usr/bin/env bash
# Lays out what a GPU host without a package index needs, in folders small enough to be carried one a call.
#
#   pack.sh BUNDLE_DIR WHEEL_DIR [OUT]      OUT defaults to .gpu at the repository's root
#
# BUNDLE_DIR holds bundle.00, bundle.01, ...: a site folder with vLLM and NIXL as xz'd tar, cut into pieces. WHEEL_DIR
# holds pure wheels of what else is missing there. OUT/1 and OUT/2 get half of the bundle each; OUT/2 also gets the
# wheels and this repository at HEAD, so that edits made meanwhile cannot travel.
set -euo pipefail
cd "$(dirname "$0")/../.."
bundle=${1:?a folder with bundle.00, ...} wheels=${2:?a folder of wheels} out=${3:-.gpu}
rm -rf "$out"
mkdir -p "$out/1" "$out/2"
total=$(cat "$bundle"/bundle.* | wc -c)
cat "$bundle"/bundle.* | split -d -b $(((total + 1) / 2)) - "$out/bundle."
mv "$out/bundle.00" "$out/1/"
mv "$out/bundle.01" "$out/2/"
cp "$wheels"/*.whl "$out/2/"
git archive "${REVISION:-HEAD}" | xz -6 >"$out/2/planner.tar.xz"
git rev-parse "${REVISION:-HEAD}" >"$out/2/commit"
cp benchmarks/gpu/unpack.sh "$out/1/"
cp benchmarks/gpu/unpack.sh "$out/2/"
(cd "$out" && sha256sum 1/bundle.* 2/bundle.* | sed 's|[12]/||' >2/sums)
du -sh "$out"/*
