#!/usr/bin/env bash
# Lays out what a GPU host without a package index needs, in folders small enough to be carried one a call.
#
#   pack.sh BUNDLE_DIR WHEEL_DIR [OUT [COUNT]]      OUT defaults to .gpu at the repository's root, COUNT to 2 folders
#
# BUNDLE_DIR holds bundle.00, bundle.01, ...: a site folder with vLLM and NIXL as xz'd tar, cut into pieces. WHEEL_DIR
# holds pure wheels of what else is missing there. OUT/1, OUT/2, ... get equal parts of the bundle; the last also gets
# the wheels and this repository at HEAD without its records, so that edits made meanwhile cannot travel.
set -euo pipefail
cd "$(dirname "$0")/../.."
bundle=${1:?a folder with bundle.00, ...} wheels=${2:?a folder of wheels} out=${3:-.gpu} count=${4:-2}
rm -rf "$out"
mkdir -p "$out"
total=$(cat "$bundle"/bundle.* | wc -c)
cat "$bundle"/bundle.* | split -d -b $(((total + count - 1) / count)) - "$out/bundle."
for ((part = 1; part <= count; part++)); do
  mkdir "$out/$part"
  mv "$out/bundle.$(printf %02d $((part - 1)))" "$out/$part/"
  cp benchmarks/gpu/unpack.sh "$out/$part/"
done
cp "$wheels"/*.whl "$out/$count/"
git archive "${REVISION:-HEAD}" -- . ':!benchmarks/recorded' | xz -6 >"$out/$count/planner.tar.xz"
git rev-parse "${REVISION:-HEAD}" >"$out/$count/commit"
(cd "$out" && sha256sum */bundle.* | sed 's|[0-9]*/||' >"$count/sums")
du -sh "$out"/*
