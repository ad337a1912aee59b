#!/usr/bin/env bash
# Joins the carried pieces into a site folder for PYTHONPATH, on a host that has PyTorch but no package index.
#
#   unpack.sh keep PIECE_DIR          keep pieces (bundle.00, ...) and wheels that came with this call
#   unpack.sh join                    unpack what was kept: packages into $SITE, the repository into $CODE
#
# KEEP (default /tmp/pieces), SITE (default /tmp/site) and CODE (default /tmp/planner) are folders on that host.
set -euo pipefail
KEEP=${KEEP:-/tmp/pieces} SITE=${SITE:-/tmp/site} CODE=${CODE:-/tmp/planner}
case ${1:?keep or join} in
keep)
  mkdir -p "$KEEP"
  cp "${2:?a folder of pieces}"/* "$KEEP"/
  ls -l "$KEEP"
  ;;
join)
  [ -f "$SITE/.whole" ] && exit 0
  (cd "$KEEP" && sha256sum --check --quiet sums)
  rm -rf "$SITE" "$CODE"
  mkdir -p "$SITE" "$CODE"
  xz -dc "$KEEP/planner.tar.xz" | tar x -C "$CODE"
  cat "$KEEP"/bundle.* | xz -dc -T0 | tar x -C "$SITE"
  for wheel in "$KEEP"/*.whl; do
    if [ -f "$wheel" ]; then python3 -m zipfile -e "$wheel" "$SITE"; fi
  done
  python3 -m compileall -q -j 0 "$SITE/vllm" >/dev/null || true # saves each server that; a few files are templates
  touch "$SITE/.whole"
  du -sh "$SITE" "$CODE"
  ;;
*)
  echo "unpack.sh: $1 is unknown; allowed: keep, join" >&2
  exit 2
  ;;
esac
