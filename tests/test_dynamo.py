"""The same YAML on NVIDIA Dynamo: what its processes are told, what is refused, its answers, and a real run.

The real run needs a Python that has Dynamo: DYNAMO_PYTHON, or this one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("aiohttp", reason="the live extra is not installed")

from live import dynamo
from live.dynamo_servers import record_of
from live.launch import Gpu, LiveError, Ports, Runtime
from live.models import ServedModel
from live.results import Outcome, row_of
from planner import cli
from planner.interop.export import export
from planner.run.metrics import summarise
from planner.run.tables import Run
from planner.spec import SpecError, load
from planner.system.resolve import Pool, System, resolve
from planner.traffic.requests import Request

PYTHON = os.environ.get("DYNAMO_PYTHON", sys.executable)
MOCK = Runtime("mock", "1.4.2", "ai-dynamo", None, None, dynamo="1.4.2")
GPUS = Runtime("gpu", "0.26.0", "vllm", "2.11", "1.3.2", tuple(Gpu(i, "H200", 2**37) for i in range(2)), dynamo="1.4.2")
MODEL = ServedModel("/models/m", "dummy", 32_000)
PORTS = Ports(9001, 9002, 9003)
TABLE = Path("/tmp/table.npz")


def system_of(config: str, *changes: str) -> System:
    return resolve(load(config, list(changes)))


def options(command: list[str]) -> dict[str, str]:
    return dict(word.removeprefix("--").partition("=")[::2] for word in command[3:])


def worker(system: System, pool: Pool, runtime: Runtime) -> list[str]:
    return dynamo.worker_command(system, pool, runtime, MODEL, PORTS, "py", TABLE)


def test_mockers_have_the_limits_the_link_and_the_roles_of_the_config() -> None:
    system = system_of("disagg", "deployment.link.bandwidth_gb_s=40", "engine.enable_prefix_caching=false")
    for pool in system.pools:
        command = worker(system, pool, MOCK)
        assert command[:3] == ["py", "-m", "dynamo.mocker"]
        told = options(command)
        limits = pool.limits
        assert told["disaggregation-mode"] == pool.role
        assert told["endpoint"] == dynamo.ENDPOINTS[pool.role]
        assert int(told["num-gpu-blocks-override"]) == limits.kv_blocks
        assert int(told["max-num-batched-tokens"]) == limits.max_num_batched_tokens
        assert int(told["kv-bytes-per-token"]) == system.kv_bytes_per_token
        assert float(told["kv-transfer-bandwidth"]) == 40
        assert "no-enable-prefix-caching" in told
        assert told["discovery-backend"] == "file" and told["event-plane"] == "zmq"


def test_an_aggregated_worker_has_no_role_and_no_link() -> None:
    system = system_of("agg")
    told = options(worker(system, system.pools[0], MOCK))
    assert not {"disaggregation-mode", "kv-transfer-bandwidth"} & told.keys()


def test_on_gpus_the_workers_are_dynamos_vllm_with_our_engine_options() -> None:
    system = system_of("disagg", "deployment.router.policy=prefix_aware")
    prefill, decode = (options(worker(system, pool, GPUS)) for pool in system.pools)
    assert worker(system, system.pools[0], GPUS)[:3] == ["py", "-m", "dynamo.vllm"]
    assert int(prefill["max-num-seqs"]) == system.pools[0].limits.max_num_seqs
    assert json.loads(prefill["kv-transfer-config"])["kv_role"] == "kv_both"
    assert json.loads(prefill["kv-events-config"])["endpoint"].endswith(f":{PORTS.kv_events}")
    assert "kv-events-config" not in decode  # its router does not look into decode workers' caches
    assert "scheduler-cls" not in prefill


@pytest.mark.parametrize(("policy", "mode"), sorted(dynamo.MODES.items()))
def test_the_frontend_routes_as_the_config_says(policy: str, mode: str) -> None:
    changes = [f"deployment.router.policy={policy}", "deployment.router.overlap_weight=2"]
    told = options(dynamo.frontend_command(system_of("disagg", *changes), "py", 8000))
    assert told["router-mode"] == mode and told["http-port"] == "8000"
    assert told.get("router-kv-overlap-score-credit") == ("2" if mode == "kv" else None)
    assert (dynamo.AFFINITY in told) == (policy == "session_affinity")


@pytest.mark.parametrize(
    ("config", "changes", "where"),
    [
        ("disagg", ["deployment.router.policy=topology_aware"], "deployment.router.policy"),
        ("disagg", ["deployment.router.prefill_dispatch=shared_queue"], "prefill_dispatch"),
        ("disagg", ["deployment.local_prefill.max_tokens=10"], "local_prefill"),
        ("disagg", ["deployment.router.decode_choice=at_arrival", "deployment.decode.replicas=2"], "decode_choice"),
        ("disagg", ["deployment.router.max_queue=4"], "max_queue"),
        ("disagg", ["deployment.decode.router.policy=random"], "deployment.decode.router"),
        ("agg", ["engine.scheduler=prefill_first"], "engine.scheduler"),
        ("rag", [], "retrieval"),
    ],
)
def test_what_dynamo_would_not_do_is_refused_in_one_line(config: str, changes: list[str], where: str) -> None:
    with pytest.raises(SpecError, match=where) as error:
        dynamo.check(system_of(config, *changes), MOCK)
    assert "allowed: " in str(error.value) and "\n" not in str(error.value)


def test_gpus_are_counted_for_its_vllm_only() -> None:
    system = system_of("disagg", "deployment.decode.replicas=2")
    dynamo.check(system, MOCK)
    with pytest.raises(LiveError, match="needs 3 GPUs; 2 are visible"):
        dynamo.check(system, GPUS)


def test_a_python_without_dynamo_says_how_to_install_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    with pytest.raises(ImportError, match=r"llm-capacity-planner\[dynamo\]"):
        dynamo.detect(str(tmp_path / "bare/bin/python"))
    with pytest.raises(LiveError, match="is no Python that runs"):
        dynamo.detect(str(tmp_path / "nothing"))


@pytest.mark.parametrize("words", [["--stack", "other"], ["--stack", "dynamo", "--token", "t"]])
def test_the_option_is_checked_before_anything_starts(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["live", "cpu-1p1d", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_step_table_is_the_law_of_the_pool() -> None:
    system = system_of("disagg", "engine.max_model_len=8192")
    prompt = dynamo.typical_prompt(system)
    for pool in system.pools:
        table, step = dynamo.step_table(pool, prompt), pool.profile.step
        for chunks in ([1], [700], [prompt], [prompt] * 2, [prompt, prompt, 1024]):
            found = np.interp(sum(chunks), table["prefill_isl"], table["prefill_ttft_ms"])
            usual_ms = 1e3 * pool.profile.usual_slowing * step.mixed([(one, 0) for one in chunks], 0, 0)
            assert found == pytest.approx(usual_ms, rel=0.03)
        for batch, context in ((1, 500), (16, 1000), (64, 3000)):
            base, slope = step.decode(batch)
            row = [np.interp(context, table["decode_context_length"], one) for one in table["decode_itl"]]
            found = np.interp(batch * context, table["decode_active_kv_tokens"], row)
            assert found == pytest.approx(1e3 * (base + slope * batch * context), rel=0.05)


def outcome(nvext: dict[str, Any]) -> Outcome:
    request = Request(0, 0, 100, 8, 8, ((1, 100),), 0, 2)
    return Outcome(request, "http://x", "id", arrival_s=1.0, token_times_s=[1.5], nvext=nvext)


def test_what_an_answer_tells_becomes_the_requests_row() -> None:
    told = {
        "worker_id": {"prefill_worker_id": 7, "decode_worker_id": 9},
        "timing": {"request_received_ms": 5_001_000, "prefill_wait_time_ms": 20.0, "prefill_time_ms": 300.0,
                   "kv_hit_rate": 3 / 7},
    }  # fmt: skip
    one = outcome(told)
    record = record_of(one, {7: "prefill-0", 9: "decode-0"}, 1000.0, 4000.0, 16)
    row = row_of(one, record, 1000.0)
    assert (row["worker"], row["decode_worker"]) == ("prefill-0", "decode-0")
    assert (row["queued_s"], row["prefill_end_s"]) == pytest.approx((1.02, 1.32))
    assert row["cached_tokens"] == 48  # 3 of 7 blocks of 16


def test_a_decode_worker_alone_prefilled_itself_and_an_unknown_one_is_null() -> None:
    alone = record_of(outcome({"worker_id": {"decode_worker_id": 9}}), {9: "decode-0"}, 0.0, 0.0, 16)
    assert alone.worker == alone.decode_worker == "decode-0"
    unknown = record_of(outcome({"worker_id": {"decode_worker_id": 9}}), {}, 0.0, 0.0, 16)
    assert unknown.worker is None and unknown.decode_worker is None


def dynamo_here() -> str | None:
    try:
        return dynamo.detect(PYTHON).kind
    except (ImportError, LiveError):
        return None


needs_dynamo = pytest.mark.skipif(
    dynamo_here() != "mock", reason="NVIDIA Dynamo is not installed: DYNAMO_PYTHON names no Python of it"
)


@needs_dynamo
@pytest.mark.xdist_group("engines")
def test_a_config_runs_on_the_real_dynamo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two prefill and two decode mockers behind the real frontend and its KV router; nothing of them is left."""
    pools = ["deployment.prefill.replicas=2", "deployment.decode.replicas=2", "deployment.router.policy=prefix_aware"]
    sets = [word for one in [*pools, "workload.requests=24", "workload.rate=6"] for word in ("--set", one)]
    words = ["live", "cpu-1p1d", "--stack", f"dynamo={PYTHON}", "--json", "--out", str(tmp_path / "run"), *sets]
    assert cli.run(words) == 0
    answer = json.loads(capsys.readouterr().out)
    run = Run.load(tmp_path / "run")
    requests = run.requests
    assert list(requests["finish_reason"]) == ["length"] * 24
    assert (requests["output_tokens"] == 32).all() and (requests["prompt_tokens"] == 256).all()
    assert set(requests["worker"]) == {"prefill-0", "prefill-1"}
    assert set(requests["decode_worker"]) == {"decode-0", "decode-1"}
    assert (requests["prefill_end_s"] <= requests["first_token_s"]).all()
    assert run.manifest["runtime"] == "mock" and run.manifest["provenance"] == "mocked"
    assert any("mocker" in text for text in run.manifest["warnings"])
    assert summarise(run)["local_prefill_share"] == 0
    assert answer["provenance"] == "mocked"
    logs = sorted((tmp_path / "run" / "logs").glob("*.log"))
    assert len(logs) == 5
    started = {log.read_text().splitlines()[0].removeprefix("# ") for log in logs}
    assert not started & set(command_lines())


@needs_dynamo
@pytest.mark.xdist_group("engines")
def test_sessions_stay_with_their_worker_on_the_real_dynamo(tmp_path: Path) -> None:
    """Twelve sessions of three turns on three mockers: each on one of them, and not all on the same."""
    chats = ["rate=4", "sessions=12", "turns=3", "think_time_s=0.2", "prompt_tokens=64", "output_tokens=8"]
    sets = ["deployment.replicas=3", "deployment.router.policy=session_affinity", "workload.kind=sessions"]
    sets += [f"workload.{one}" for one in chats]
    words = ["live", "cpu-agg", "--stack", f"dynamo={PYTHON}", "--json", "--out", str(tmp_path / "run")]
    assert cli.run([*words, *(word for one in sets for word in ("--set", one))]) == 0
    requests = Run.load(tmp_path / "run").requests
    assert list(requests["finish_reason"]) == ["length"] * 36
    assert (requests.groupby("session_id")["worker"].nunique() == 1).all()
    assert requests["worker"].nunique() > 1


READS = """
import argparse, json, sys, yaml
from dynamo.common.configuration.groups.runtime_args import DynamoRuntimeArgGroup
from dynamo.frontend.frontend_args import FrontendArgGroup
from dynamo.profiler.utils.config import Config
from dynamo.vllm.backend_args import DynamoVllmArgGroup
found = {}
for name, service in Config.model_validate(yaml.safe_load(open(sys.argv[1]))).spec.services.items():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    DynamoRuntimeArgGroup().add_arguments(parser), DynamoVllmArgGroup().add_arguments(parser)
    known, rest = parser.parse_known_args(service.extraPodSpec.mainContainer.args or [])
    found[name] = [service.replicas, service.resources and service.resources.limits, known.disaggregation_mode, rest]
parser = argparse.ArgumentParser()
FrontendArgGroup().add_arguments(parser)
given = parser.parse_args([])
print(json.dumps(found | {"router": given.router_mode, "affinity": given.session_affinity_ttl_secs}))
"""


@needs_dynamo
@pytest.mark.parametrize(
    ("policy", "told_of"), [("prefix_aware", ("kv", None)), ("session_affinity", ("random", dynamo.AFFINITY_S))]
)
def test_dynamos_own_code_reads_our_export(tmp_path: Path, policy: str, told_of: tuple[str, int | None]) -> None:
    """Its model of a DynamoGraphDeployment, its workers' options, its frontend's environment."""
    changes = [f"deployment.router.policy={policy}", "deployment.prefill.replicas=3", "deployment.decode.tp=2"]
    export(load("disagg", changes), "dynamo", tmp_path)
    envs = yaml.safe_load((tmp_path / "dynamo.yaml").read_text())["spec"]["services"]["Frontend"]["envs"]
    environment = os.environ | {one["name"]: one["value"] for one in envs} | {"PYTHONPATH": ""}
    words = [PYTHON, "-c", READS, str(tmp_path / "dynamo.yaml")]
    told = subprocess.run(words, capture_output=True, text=True, check=True, env=environment, timeout=300)
    found = json.loads(told.stdout.splitlines()[-1])
    assert (found["router"], found["affinity"]) == told_of
    prefill, decode = found["VllmPrefillWorker"], found["VllmDecodeWorker"]
    assert prefill[:3] == [3, {"gpu": "1"}, "prefill"] and decode[:3] == [1, {"gpu": "2"}, "decode"]
    vllm_ones = {word.partition("=")[0] for word in prefill[3] if word.startswith("--")}
    assert {"--model", "--kv-transfer-config", "--max-num-seqs"} <= vllm_ones
    assert not [word for word in vllm_ones if word.startswith(("--dis", "--endpoint"))]  # all of Dynamo's were known


def command_lines() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                yield (entry / "cmdline").read_text().rstrip("\0").replace("\0", " ")
