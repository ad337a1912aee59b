"""Runs planner command lines for `fuzz.py`, each in a fork of this process, which has imported what they need.

A line of JSON comes in: `words` of the command, the `folder` to stand in, limits in `seconds` of processor time and
`bytes` of address space, and the `answer` (Latin-1) of a server at `{url}`, or null. Standard output and error go to
`.out` and `.err` in the folder. A line goes back: `status` as waitpid says it, and `bytes`, the most memory it held.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Each imports on its way what cases of its kind need.
USUAL = [
    "simulate agg --no-save --json",
    "simulate disagg --no-save --table vllm",
    "replay quickstart --no-save",
    "trace {root}/traces/documents_mooncake.jsonl",
    "import nothing",
    "export disagg --out here",
    "show nothing",
    "results nothing",
    "calibrate agg --from {root}/tests/data/h200-async-steps.csv --out p.yaml",
    "metrics",
    "memory --json",
    "sweep nothing",
    "watch --replay nothing",
    "live cpu-agg --endpoint http://127.0.0.1:9 --no-save",
]
MODELS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + b'{"data": [{"id": "m"}]}'


def _serve(answer: bytes) -> str:
    """A server in this process; its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def each() -> None:
        while True:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), connection:
                connection.settimeout(5)
                models = connection.recv(65_536).startswith(b"GET /v1/models")
                connection.sendall(MODELS if models else answer)

    threading.Thread(target=each, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


def _stream(number: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", errors="replace")


def _child(case: dict[str, Any]) -> None:
    """Run one and end this process."""
    code = 1
    try:
        os.setsid()  # what it starts ends with it
        os.chdir(case["folder"])
        seconds = case["seconds"]
        resource.setrlimit(resource.RLIMIT_AS, (case["bytes"], case["bytes"]))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
        signal.alarm(3 * seconds)  # for what sleeps
        for name, number in ((".out", 1), (".err", 2)):
            os.dup2(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout, sys.stderr = (_stream(number) for number in (1, 2))
        url = _serve(case["answer"].encode("latin-1")) if case["answer"] is not None else ""
        from planner import cli

        code = cli.run([word.replace("{url}", url) for word in case["words"]])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - told by its traceback
        traceback.print_exc()
    finally:
        if os.environ.get("FUZZ_MODULES"):
            with open(".modules", "w") as file:
                file.write("\n".join(sys.modules))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def forked(case: dict[str, Any]) -> dict[str, int]:
    """Run one in a process of its own, and end whatever it leaves behind."""
    child = os.fork()
    if child == 0:
        _child(case)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # until wait4 its group has a name that nobody else can get
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return {"status": status, "bytes": usage.ru_maxrss * 1024}


def prepare() -> None:
    """Import what the usual commands import."""
    os.environ["FUZZ_MODULES"] = "1"
    for line in USUAL:
        with tempfile.TemporaryDirectory() as folder:
            words = line.replace("{root}", str(ROOT)).split()
            forked({"words": words, "folder": folder, "seconds": 60, "bytes": 6 * 2**30, "answer": None})
            with open(os.path.join(folder, ".modules")) as file:
                names = file.read().split("\n")
        for name in names:
            if name not in sys.modules:
                with contextlib.suppress(ImportError):  # a part of a package that names itself otherwise
                    importlib.import_module(name)
    del os.environ["FUZZ_MODULES"]
    gc.freeze()  # the children's collections leave shared pages alone


def main() -> None:
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.set_inheritable(replies.fileno(), False)
    prepare()
    print("{}", file=replies)
    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), file=replies)


if __name__ == "__main__":
    main()
