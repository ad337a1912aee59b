"""Clients as their users run them, unmodified, against the frontend over fake engines (tests/fake_engine.py).

    python benchmarks/clients.py [--python NAME=PATH ...] [--only NAME ...] [--split]

`--python litellm=/tmp/litellm/bin/python` names the Python of a virtual environment that has a client; this Python is
tried for those that are not named. Each client does some requests, and its own exit code and figures say whether all
were answered. Prints a table; exit code 1 when one failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fake_engine import FakeEngine, system_of
from live.frontend import Frontend
from live.models import make_folder
from planner.engine.model_config import model_config

SECONDS = 300
MODEL = "fake"
OPENAI = """
import openai, sys
client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
say = [{"role": "user", "content": "Why split prefill and decode?"}]
assert "fake" in [model.id for model in client.models.list()] and client.models.retrieve("fake").id == "fake"
assert client.chat.completions.create(model="fake", messages=say, max_tokens=5).usage.completion_tokens == 5
chunks = list(client.chat.completions.create(model="fake", messages=say, max_tokens=5, stream=True))
assert sum(bool(chunk.choices[0].delta.content) for chunk in chunks) == 5
assert client.completions.create(model="fake", prompt="Once", max_tokens=4).choices[0].finish_reason == "length"
tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
shape = {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}}
client.chat.completions.create(model="fake", messages=say, tools=[tool], tool_choice="auto", response_format=shape)
try:
    client.embeddings.create(model="fake", input="a")
except openai.NotFoundError as error:
    assert "/v1/embeddings" in str(error)
else:
    raise AssertionError("embeddings")
try:
    client.responses.create(model="fake", input="a")
except openai.NotFoundError as error:
    assert "/v1/responses" in str(error)
print("lists, chat, streams, text, tools, a schema; embeddings and responses refused")
"""
LITELLM = """
import asyncio, litellm, sys
where = dict(api_base=sys.argv[1], api_key="none", num_retries=0)
say = [{"role": "user", "content": "Why split prefill and decode?"}]
for model in ("openai/fake", "hosted_vllm/fake"):
    answer = litellm.completion(model=model, messages=say, max_tokens=5, temperature=0, **where)
    assert answer.usage.completion_tokens == 5, answer
    parts = list(litellm.completion(model=model, messages=say, max_tokens=5, stream=True, user="me", **where))
    assert sum(bool(part.choices[0].delta.content) for part in parts) == 5, parts
async def many():
    asked = [litellm.acompletion(model="openai/fake", messages=say, max_tokens=3, **where) for _ in range(20)]
    assert all(one.usage.completion_tokens == 3 for one in await asyncio.gather(*asked))
asyncio.run(many())
text = litellm.text_completion(model="text-completion-openai/fake", prompt="Once", max_tokens=4, **where)
assert text.choices[0].finish_reason == "length", text
try:
    litellm.completion(model="openai/none", messages=say, **where)
except litellm.NotFoundError as error:
    assert "does not exist" in str(error)
print("chat, streams, 20 at once, text; an unknown model is NotFoundError")
"""
VLLM = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


@dataclass(frozen=True)
class Client:
    """`command` for a Python, an address and folders of a tokenizer and for results; `judge` reads the results."""

    name: str
    package: str
    command: Callable[[str, str, Path, Path], list[str]]
    judge: Callable[[str, Path], str]


def _last(out: str, _: Path) -> str:
    return out.strip().splitlines()[-1]


def _vllm_bench(backend: str, path: str) -> Callable[[str, str, Path, Path], list[str]]:
    def command(python: str, url: str, model: Path, results: Path) -> list[str]:
        return [
            python, "-c", VLLM, "--backend", backend, "--base-url", url, "--endpoint", path, "--model", MODEL,
            "--tokenizer", str(model), "--dataset-name", "random", "--random-input-len", "30",
            "--random-output-len", "8", "--num-prompts", "20", "--request-rate", "20", "--ignore-eos",
            "--save-result", "--result-dir", str(results), "--result-filename", "vllm.json",
        ]  # fmt: skip

    return command


def _vllm_judge(_: str, results: Path) -> str:
    found = json.loads((results / "vllm.json").read_text())
    assert (found["completed"], found["total_output_tokens"]) == (20, 160), found
    return f"20 of 20 completed, 160 tokens, mean TTFT {found['mean_ttft_ms']:.0f} ms"


def _guidellm(python: str, url: str, model: Path, results: Path) -> list[str]:
    return [
        str(Path(python).with_name("guidellm")), "run", "--backend", f"kind=openai_http,target={url},model={MODEL}",
        "--tokenizer", f"kind=hf_auto,model={model}", "--data", "kind=synthetic_text,prompt_tokens=30,output_tokens=8",
        "--profile", "kind=concurrent,streams=4", "--constraint", "kind=max_requests,count=20",
        "--output", f"kind=json,path={results / 'guidellm.json'}", "--disable-console",
    ]  # fmt: skip


def _guidellm_judge(_: str, results: Path) -> str:
    (benchmark,) = json.loads(next(results.glob("*.json")).read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert (totals["successful"], totals["errored"]) == (20, 0), totals
    return "20 of 20 successful"


def _aiperf(python: str, url: str, model: Path, results: Path) -> list[str]:
    return [
        str(Path(python).with_name("aiperf")), "profile", "--model", MODEL, "--url", url, "--endpoint-type", "chat",
        "--streaming", "--tokenizer", str(model), "--request-count", "20", "--concurrency", "4",
        "--synthetic-input-tokens-mean", "30", "--output-tokens-mean", "8", "--artifact-dir", str(results),
        "--ui", "none",
    ]  # fmt: skip


def _aiperf_judge(_: str, results: Path) -> str:
    found = json.loads(next(results.rglob("profile_export_aiperf.json")).read_text())
    assert found["request_count"]["avg"] == 20, found["request_count"]
    assert not found.get("error_summary"), found["error_summary"]
    return f"20 of 20, mean TTFT {found['time_to_first_token']['avg']:.0f} ms"


CLIENTS = (
    Client("openai", "openai", lambda python, url, *_: [python, "-c", OPENAI, f"{url}/v1"], _last),
    Client("litellm", "litellm", lambda python, url, *_: [python, "-c", LITELLM, f"{url}/v1"], _last),
    Client("vllm-completions", "vllm", _vllm_bench("openai", "/v1/completions"), _vllm_judge),
    Client("vllm-chat", "vllm", _vllm_bench("openai-chat", "/v1/chat/completions"), _vllm_judge),
    Client("guidellm", "guidellm", _guidellm, _guidellm_judge),
    Client("aiperf", "aiperf", _aiperf, _aiperf_judge),
)


def has(python: str, package: str) -> bool:
    test = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([python, "-c", test], check=False).returncode == 0


def tried(client: Client, python: str, url: str, model: Path) -> tuple[bool, str]:
    """(whether it worked, what it did or why not)."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # not this checkout
        environment["OPENAI_API_KEY"] = "none"
        command = client.command(python, url, model, Path(folder))
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, cwd=folder, env=environment, check=False
            )
        except subprocess.TimeoutExpired:
            return False, f"did not end within {SECONDS} s"
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            return False, f"exit code {done.returncode}: {said[-1] if said else ''}"
        try:
            return True, client.judge(done.stdout, Path(folder))
        except (AssertionError, LookupError, StopIteration, OSError, ValueError) as error:
            return False, f"{type(error).__name__}: {error}"


async def run(pythons: dict[str, str], only: list[str], split: bool) -> bool:
    deployment = {"mode": "disaggregated"} if split else {"mode": "aggregated"}
    roles = ("prefill", "decode") if split else ("aggregated",)
    config = model_config("llama-3.1-8b").config | {"vocab_size": 2048}
    model = await asyncio.to_thread(make_folder, config, Path(tempfile.gettempdir()) / "planner-clients", "clients")
    engines = [FakeEngine(f"{role}-0", role, natural=10_000) for role in roles]
    for engine in engines:
        await engine.__aenter__()
    fine = True
    try:
        async with Frontend(system_of(deployment), [engine.address for engine in engines]) as frontend:
            for client in CLIENTS:
                if only and client.name not in only:
                    continue
                python = pythons.get(client.name) or pythons.get(client.package) or sys.executable
                begun = time.monotonic()
                if not await asyncio.to_thread(has, python, client.package):
                    print(f"{client.name:18} not installed", flush=True)
                    continue
                works, said = await asyncio.to_thread(tried, client, python, frontend.base_url, model)
                fine &= works
                word = "ok" if works else "FAILED"
                print(f"{client.name:18} {word:7} {time.monotonic() - begun:4.0f} s  {said[:300]}", flush=True)
    finally:
        for engine in engines:
            await engine.__aexit__()
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--only", nargs="*", default=[], choices=[client.name for client in CLIENTS])
    parser.add_argument("--split", action="store_true", help="a prefill and a decode engine")
    given = parser.parse_args()
    pythons = dict(one.split("=", 1) for one in given.python)
    return 0 if asyncio.run(run(pythons, given.only, given.split)) else 1


if __name__ == "__main__":
    sys.exit(main())
