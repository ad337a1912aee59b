"""Faults on purpose: each is played, and what the commands say, keep and leave is held against what they should.

    python benchmarks/fault_drill.py [--real] [--config cpu-1p1d] [--kind servers] [--only decode] [--stage late]
        [--fault KILL] [--keep results.jsonl] [--list]
    python benchmarks/fault_drill.py --table before.jsonl now.jsonl   # writes benchmarks/faults.md

Kinds: servers (each role, and its watchdog, killed or stopped at each stage of `planner live`), driver (the command
itself: its process is the frontend too), calibrate, serve (servers and the frontend's process behind `planner serve`),
clients (half of them leave), disk (the run folder's file system is full), endpoint (benchmarks/broken_endpoint.py).
Engines are those of tests/fake_engine.py; --real takes vLLM's CPU build (about a minute a drill).
A drill is well where the exit code is the one that it should be, the words name the cause, every row that was written
is kept and can be shown, no traceback is printed and no process is left. Exits with 1 where one is not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from broken_endpoint import FIRST, MODES
from driven_command import LIMIT_S, REAL, ROOT, Command, children, command_of, send, tree

from planner.commands import read_run
from planner.run import journal
from planner.spec import SpecError

REQUESTS = 80
LOAD = f"workload={{kind: poisson, rate: 10, requests: {REQUESTS}, prompt_tokens: 24, output_tokens: 24}}"
FEW = "workload={kind: constant, rate: 20, requests: 20, prompt_tokens: 9, output_tokens: 8}"
STAGES = ("starting", "warm-up", "early", "late", "stopping")
ROWS = {"early": 5, "late": REQUESTS - 10}  # written by then
CLIENTS = 24


@dataclass(frozen=True)
class Drill:
    kind: str
    victim: str
    stage: str
    fault: str  # KILL, STOP, HUP, or what else


@dataclass
class Seen:
    """What came of a drill. `wrong` lists what should not be so."""

    code: int | None = None
    kept: int = 0
    done: int = 0
    said: str = ""
    wrong: list[str] = field(default_factory=list)

    def must(self, holds: object, what: str) -> None:
        if not holds:
            self.wrong.append(what)


def server_pids(command: Command, roles: list[str], role: str, fault: str) -> list[int]:
    """What the fault is done to: KILL ends the engine (the last process of its server), STOP stops all of them."""
    watchdogs = command.watchdogs()
    if len(watchdogs) < len(roles):
        return []
    below = tree(watchdogs[roles.index(role)])
    if fault == "STOP":
        return below
    engines = [pid for pid in below if "EngineCore" in command_of(pid)]
    return engines[-1:] or below[-1:]


def rows(folder: Path) -> int:
    path = folder / journal.NAME
    return len(path.read_text().splitlines()) - 1 if path.exists() else -1


def look(seen: Seen, command: Command, folder: Path, *, left_s: float = 2.0, rows_before: int = 0) -> None:
    """What every drill must hold: no traceback, nothing left, rows kept and shown."""
    left = command.left(left_s)
    seen.must(not left, f"{len(left)} processes are left: {[command_of(pid)[:60] for pid in left]}")
    send(left, signal.SIGKILL)
    text = "".join([*command.out, *command.err])
    trace = re.search(r"Traceback.*?^(\w\S*(?:Error|Exception|Interrupt)\b.*?)$", text, re.S | re.M)
    seen.must("Traceback" not in text, f"a traceback{f': {trace[1]}' if trace else ''}")
    seen.must(seen.code is not None, f"it did not end within {LIMIT_S:.0f} s")
    seen.said = seen.said or command.headline()
    with contextlib.suppress(SpecError, FileNotFoundError):
        found = read_run(folder).requests
        seen.kept, seen.done = len(found), int(found["finish_reason"].isin(["stop", "length"]).sum())
    seen.must(seen.kept >= rows_before, f"{seen.kept} rows kept of {rows_before} written")
    words = [sys.executable, "-c", REAL.format(paths=[str(ROOT)], words=["show", str(folder)])]
    shown = subprocess.run(words, capture_output=True, text=True, cwd=folder.parent)
    seen.must(shown.returncode == (0 if seen.kept else 2), f"show: exit {shown.returncode}")
    if not seen.kept:
        seen.must(len(shown.stderr.strip().splitlines()) == 1, "show: not one line")


# --- drills ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Where drills are played."""

    real: bool
    config: str
    stop_s: float

    @property
    def roles(self) -> list[str]:
        return ["prefill", "decode"] if "1p1d" in self.config else ["aggregated"]

    def start(self, words: list[str], folder: Path) -> Command:
        model = ["--set", "model=tiny"] if self.real else ["--set", "run.step_records=false"]
        return Command([words[0], self.config, *model, *words[1:]], self.real, folder.parent)

    def reach(self, command: Command, stage: str, folder: Path) -> bool:
        reached: dict[str, Callable[[], object]] = {
            "starting": lambda: (
                len(command.watchdogs()) == len(self.roles) and all(children(one) for one in command.watchdogs())
            ),
            "warm-up": lambda: command.has_said("^warm up:"),
            "stopping": lambda: command.has_said("^stop servers:"),
            "calibrating": lambda: command.has_said("^load: +[1-9]"),
        }
        return command.wait(reached.get(stage) or (lambda: rows(folder) >= ROWS[stage]))


def servers(drill: Drill, bench: Bench, folder: Path) -> Seen:
    """One of the servers, or a watchdog."""
    seen, command = Seen(), bench.start(["live", "--set", LOAD, "--out", str(folder)], folder)
    seen.must(bench.reach(command, drill.stage, folder), f"{drill.stage} was not reached")
    before = max(rows(folder), 0)
    if drill.victim == "watchdog":
        victims = command.watchdogs()[-1:]
    else:
        victims = server_pids(command, bench.roles, drill.victim, drill.fault)
    send(victims, signal.Signals[f"SIG{drill.fault}"])
    if drill.fault == "STOP" and drill.stage != "stopping":
        time.sleep(bench.stop_s)
        send(victims, signal.SIGCONT)
    seen.code = command.end()
    look(seen, command, folder, rows_before=before)
    name = bench.roles[-1] if drill.victim == "watchdog" else drill.victim
    if drill.stage == "stopping":  # all was measured, saved, and is told
        seen.must(seen.code == 0 and seen.done == REQUESTS, "a whole run")
    elif drill.fault == "KILL":
        how = {"starting": "did not start: ", "warm-up": "(died while it warmed up|did not start): "}
        seen.must(seen.code == 1 and re.search(f"{name}-0 {how.get(drill.stage, 'died: ')}", seen.said), "its name")
    elif seen.done < seen.kept:
        seen.must(seen.code == 1 and f"{name}-0 was stopped by a signal for " in seen.said, "its name")
    else:
        seen.must(seen.code == 0 and seen.done == REQUESTS, "a whole run")
        if drill.stage in ROWS:
            seen.must(command.has_said("stopped by a signal for"), "a warning that it stood still")
    return seen


def driver(drill: Drill, bench: Bench, folder: Path) -> Seen:
    """The command itself, which is the client and the frontend too."""
    seen, command = Seen(), bench.start(["live", "--set", LOAD, "--out", str(folder)], folder)
    seen.must(bench.reach(command, drill.stage, folder), f"{drill.stage} was not reached")
    before = max(rows(folder), 0) if drill.stage != "stopping" else REQUESTS
    number = signal.Signals[f"SIG{drill.fault}"]
    send([command.process.pid], number)
    if drill.fault == "STOP":
        time.sleep(bench.stop_s)
        send([command.process.pid], signal.SIGCONT)
    seen.code = command.end()
    look(seen, command, folder, left_s=20.0, rows_before=before)
    if drill.fault == "KILL":
        seen.must(seen.code == -9, "exit -9")
    elif drill.fault == "STOP":
        seen.must(seen.code == 0 and seen.done == REQUESTS, "a whole run")
        if drill.stage in ROWS:
            seen.must(command.has_said("late|lag"), "a warning that requests were sent late")
    else:
        seen.must(seen.code == (130 if drill.stage != "stopping" else 0), "exit 130, or 0 once all is measured")
    return seen


def calibrate(drill: Drill, bench: Bench, folder: Path) -> Seen:
    """`planner calibrate` and its engine while steps are measured."""
    profile = folder.with_suffix(".yaml")
    words = ["calibrate", "--seconds", "5", "--rounds", "1", "--out", str(profile)]
    seen, command = Seen(), bench.start(words, folder)
    seen.must(bench.reach(command, drill.stage, folder), f"{drill.stage} was not reached")
    name = bench.roles[0]
    victims = (
        [command.process.pid]
        if drill.victim == "driver"
        else server_pids(command, bench.roles, drill.victim, drill.fault)
    )
    send(victims, signal.Signals[f"SIG{drill.fault}"])
    if drill.fault == "STOP":
        time.sleep(bench.stop_s)
        send(victims, signal.SIGCONT)
    seen.code = command.end()
    look(seen, command, folder, left_s=20.0)
    if drill.victim == "driver":
        seen.must(seen.code == {"KILL": -9, "HUP": 130, "TERM": 130}[drill.fault], "its exit code")
        seen.must(not profile.exists(), "no half of a profile")
    elif drill.fault == "KILL":
        seen.must(seen.code == 1 and f"{name}-0 " in seen.said and not profile.exists(), "its name and no profile")
    else:
        seen.must(seen.code in (0, 1), "an end")
        seen.must(command.has_said("stopped by a signal"), "a word that it stood still")
    return seen


def url_of(command: Command) -> str:
    found = re.search(r"^curl (http://[^/]+)/", "".join(command.out), re.M)
    assert found
    return found[1]


def serve(drill: Drill, bench: Bench, folder: Path) -> Seen:
    """Servers and the frontend's process of a service that clients use."""
    import urllib.error
    import urllib.request

    def ask(path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError as error:
            return 0, str(error)

    def answers() -> bool:
        return ask("/v1/completions", {"prompt": "a b c", "max_tokens": 4})[0] == 200

    seen, command = Seen(), bench.start(["serve", "--port", "0", "--out", str(folder)], folder)
    seen.must(command.wait(lambda: command.has_said("^curl ")), "it did not serve")
    if seen.wrong:
        seen.code = command.end(1)
        return seen
    url = url_of(command)
    seen.must(answers(), "an answer before")
    number = signal.Signals[f"SIG{drill.fault}"]
    if drill.victim == "frontend":
        send([command.process.pid], number)
        if drill.fault == "STOP":
            time.sleep(bench.stop_s)
            send([command.process.pid], signal.SIGCONT)
            seen.must(answers(), "an answer after")
            send([command.process.pid], signal.SIGINT)
        seen.code = command.end()
        seen.must(seen.code == {"KILL": -9, "STOP": 0, "HUP": 0, "TERM": 0}[drill.fault], "its exit code")
        seen.said = f"exit code {seen.code}"
    else:
        victims = server_pids(command, bench.roles, drill.victim, drill.fault)
        send(victims, number)
        name = f"{drill.victim}-0"
        seen.must(command.wait(lambda: ask("/health")[1]["workers"][name] is False, 30), "/health does not know")
        seen.said = f"/health: {ask('/health')[1].get('why')}"
        status = ask("/v1/completions", {"prompt": "a b c", "max_tokens": 4})[0]
        seen.must(status in (502, 503), f"{status} instead of 502 or 503 meanwhile")
        if drill.fault == "STOP":
            send(victims, signal.SIGCONT)
        seen.must(command.wait(lambda: ask("/health")[0] == 200 and answers(), 240), "it does not come back")
        seen.said += ", back"
        send([command.process.pid], signal.SIGINT)
        seen.code = command.end()
        seen.must(seen.code == 0, "exit 0 after Ctrl-C")
    look(seen, command, folder, left_s=20.0)
    return seen


def clients(drill: Drill, bench: Bench, folder: Path) -> Seen:
    """Half of the clients leave, mid-stream or before their first token; engines and KV blocks must be free then."""
    import asyncio

    import aiohttp

    seen, command = Seen(), bench.start(["serve", "--port", "0", "--out", str(folder)], folder)
    seen.must(command.wait(lambda: command.has_said("^curl ")), "it did not serve")
    if seen.wrong:
        seen.code = command.end(1)
        return seen
    logs = sorted((folder).glob("*-0.log"))
    ports = [re.search(r"--port[ =](\d+)", log.read_text()) if bench.real else None for log in logs]

    async def used() -> list[tuple[float, float]]:
        """(requests running or waiting, share of KV blocks used) of each engine, as it says itself."""
        found = []
        async with aiohttp.ClientSession() as session:
            for port in ports:
                if port is None:
                    continue
                async with session.get(f"http://127.0.0.1:{port[1]}/metrics") as answer:
                    text = await answer.text()
                counts = re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.M)
                busy = sum(map(float, counts))
                (blocks,) = re.findall(r"^vllm:kv_cache_usage_perc\{.*\} (\S+)$", text, re.M)
                found.append((busy, float(blocks)))
        return found

    async def one(session: aiohttp.ClientSession, number: int, started: asyncio.Event) -> bool:
        """Whether the answer came whole."""
        prompt = [1000 + (number * 37 + index) % 5000 for index in range(1500 if drill.stage == "queued" else 40)]
        body = {"prompt": prompt, "max_tokens": 150, "ignore_eos": True, "stream": True, "temperature": 0}
        text = b""
        if drill.stage == "queued":
            started.set()
        async with session.post("/v1/completions", json=body) as answer:
            async for piece in answer.content.iter_any():
                text += piece
                started.set()
        return b"[DONE]" in text

    async def play() -> tuple[int, list[tuple[float, float]], float]:
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(url_of(command), connector=connector) as session:
            started = [asyncio.Event() for _ in range(CLIENTS)]
            tasks = [asyncio.create_task(one(session, number, event)) for number, event in enumerate(started)]
            await asyncio.gather(*(event.wait() for event in started))
            if drill.stage == "queued":
                await asyncio.sleep(0.3)
            for task in tasks[::2]:
                task.cancel()
            await asyncio.gather(*tasks[::2], return_exceptions=True)
            whole = sum(await asyncio.gather(*tasks[1::2]))
            begun = time.monotonic()
            while any(busy or blocks for busy, blocks in await used()) and time.monotonic() < begun + 60:
                await asyncio.sleep(0.2)
            return whole, await used(), time.monotonic() - begun

    whole, engines, after_s = asyncio.run(play())
    seen.must(whole == CLIENTS // 2, f"{whole} of {CLIENTS // 2} that stayed got their answers")
    seen.must(not any(busy or blocks for busy, blocks in engines), f"engines hold (requests, KV share) {engines}")
    send([command.process.pid], signal.SIGINT)
    seen.code = command.end()
    seen.must(seen.code == 0, "exit 0 after Ctrl-C")
    seen.said = f"{whole} of {CLIENTS // 2} that stayed were served; engines empty after {after_s:.1f} s"
    look(seen, command, folder, left_s=20.0)
    return seen


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own; needs root."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def disk(drill: Drill, bench: Bench, folder: Path) -> Seen:
    """The file system of the run folder is full: from the start, or from a moment of the load on."""
    with small_disk(folder.parent / "disk", "8m") as place:
        filler, out = place / "filler", place / "run"

        def fill() -> None:
            with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)

        if drill.stage == "starting":
            fill()
        seen, command = Seen(), bench.start(["live", "--set", LOAD, "--out", str(out)], folder)
        before = 0
        if drill.stage != "starting":
            seen.must(bench.reach(command, drill.stage, out), f"{drill.stage} was not reached")
            fill()
            before = max(rows(out), 0)
        seen.code = command.end()
        filler.unlink()
        look(seen, command, out, rows_before=before)
        seen.must(seen.code in (1, 2), "exit 1, or 2 before anything starts")
        seen.must(command.has_said("^planner: .*No space left on device"), "the cause")
        seen.must(" died: " not in seen.said, "a server died of it")
        if drill.stage != "starting":
            seen.must(command.has_said("Latency, ms"), "the report")
    return seen


def endpoint(drill: Drill, bench: Bench, folder: Path) -> Seen:
    """Somebody else's server, which breaks off, lies or says nothing."""
    script = [sys.executable, str(ROOT / "benchmarks" / "broken_endpoint.py"), drill.fault]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        words = ["live", "--set", FEW, "--endpoint", url, "--out", str(folder)]
        seen, command = Seen(), bench.start(words, folder)
        if drill.fault == "silent":
            command.wait(lambda: command.has_said("^load:"))
            command.wait(lambda: False, 5.0)
            send([command.process.pid], signal.SIGINT)
        seen.code = command.end(120)
        server.kill()
    look(seen, command, folder)
    if drill.fault in FIRST:
        seen.must(seen.code == 2 and f"planner: endpoint {url}: " in seen.said, "a refusal in one line, exit 2")
        return seen
    done = {"half": 10, "wild usage": 0, "byte by byte": 20}.get(drill.fault, 0)
    wanted = {"silent": 130, "byte by byte": 0}.get(drill.fault, 1)
    seen.must(seen.code == wanted, f"exit {wanted}")
    seen.must(seen.kept == 20 and seen.done == done, f"20 rows, {done} done")
    if drill.fault == "429":
        seen.must(command.has_said("20 of 20 requests were rejected"), "that all were rejected")
    elif wanted == 1:
        seen.must(re.search(rf"{20 - done} of 20 requests failed: ", seen.said), "how many failed, and why, first")
    return seen


KINDS: dict[str, Callable[[Drill, Bench, Path], Seen]] = {
    "servers": servers,
    "driver": driver,
    "calibrate": calibrate,
    "serve": serve,
    "clients": clients,
    "disk": disk,
    "endpoint": endpoint,
}


def drills(bench: Bench) -> list[Drill]:
    found = [Drill("servers", role, stage, fault)
             for stage in STAGES for role in bench.roles for fault in ("KILL", "STOP")]  # fmt: skip
    found += [Drill("servers", "watchdog", stage, "KILL") for stage in STAGES]
    found += [Drill("driver", "driver", stage, fault) for stage in STAGES for fault in ("KILL", "HUP", "STOP")]
    if bench.real and bench.roles == ["aggregated"]:
        found += [Drill("calibrate", "aggregated", "calibrating", fault) for fault in ("KILL", "STOP")]
        found += [Drill("calibrate", "driver", "calibrating", fault) for fault in ("KILL", "HUP")]
    found += [Drill("serve", role, "serving", fault) for role in bench.roles for fault in ("KILL", "STOP")]
    found += [Drill("serve", "frontend", "serving", fault) for fault in ("KILL", "STOP", "HUP", "TERM")]
    found += [Drill("clients", "half of them", stage, "leave") for stage in ("queued", "mid-stream")]
    found += [Drill("disk", "run folder", stage, "full") for stage in ("starting", "early", "late")]
    if not bench.real:
        found += [Drill("endpoint", "endpoint", "from the start" if mode in FIRST else "load", mode) for mode in MODES]
    return found


Result = dict[str, Any]
HEAD = """# Faults on purpose

Written by `benchmarks/fault_drill.py`, whose text says what makes a drill well. "Before" is what the commands did when
the drill was first played, "now" what they do; "-" was not played. Engines: vLLM for CPUs (real) or stand-ins (fake).

| what | when | fault | engines | played | before | now | what is said |
|---|---|---|---|---|---|---|---|
"""


def results(path: Path) -> list[Result]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def key(one: Result) -> tuple[str, ...]:
    engines = f"{one['config'].removeprefix('cpu-')}, {'real' if one['real'] else 'fake'}"
    return one["kind"], one["victim"], one["stage"], one["fault"], engines


def table(before: list[Result], now: list[Result]) -> str:
    """A line for each kind of drill. Its last result counts."""
    old, new = {key(one): one for one in before}, {key(one): one for one in now}
    played = Counter(map(key, [*before, *now]))

    def verdict(found: Result | None) -> str:
        return "-" if found is None else "; ".join(found["wrong"]) or "well"

    lines = []
    for one in sorted(played, key=lambda found: (list(KINDS).index(found[0]), found)):
        kind, victim, *how = one
        said = re.sub(r"/tmp/\S+?/run/?|127\.0\.0\.1:\d+", "...", (new.get(one) or old[one])["said"])
        short = (said if len(said) < 160 else said[:157] + "...").replace("|", "/").replace("\n", " ")
        cells = (f"{kind}: {victim}", *how, str(played[one]), verdict(old.get(one)), verdict(new.get(one)), short)
        lines.append(f"| {' | '.join(cells)} |\n")
    return HEAD + "".join(lines)


def play(drill: Drill, bench: Bench) -> Seen:
    with tempfile.TemporaryDirectory(prefix="planner-drill-", ignore_cleanup_errors=True) as folder:
        return KINDS[drill.kind](drill, bench, Path(folder) / "run")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="cpu-1p1d", choices=["cpu-agg", "cpu-1p1d"])
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--kind", choices=list(KINDS))
    parser.add_argument("--only", dest="victim", help="a role, watchdog, driver, frontend")
    parser.add_argument("--stage")
    parser.add_argument("--fault")
    parser.add_argument("--stop-s", type=float, default=3.0)
    parser.add_argument("--keep", type=Path, help="add the results to this file")
    parser.add_argument("--list", action="store_true", help="only say what would be played")
    parser.add_argument("--table", type=Path, nargs=2, help="write benchmarks/faults.md from results of before and now")
    arguments = parser.parse_args()
    if arguments.table:
        (ROOT / "benchmarks" / "faults.md").write_text(table(*map(results, arguments.table)))
        return
    bench = Bench(arguments.real, arguments.config, arguments.stop_s)
    bad = 0
    for drill in drills(bench):
        wanted = {name: getattr(arguments, name) for name in ("kind", "victim", "stage", "fault")}
        if not all(value in (None, getattr(drill, name)) for name, value in wanted.items()):
            continue
        if arguments.list:
            print(drill)
            continue
        begun = time.monotonic()
        seen = play(drill, bench)
        bad += bool(seen.wrong)
        words = f"{drill.kind:9} {drill.victim:12} {drill.stage:11} {drill.fault:10}"
        counts = f"exit {seen.code!s:>4} kept {seen.kept:3} done {seen.done:3} {time.monotonic() - begun:4.0f} s"
        wrong = f" | WRONG: {'; '.join(seen.wrong)}" if seen.wrong else ""
        print(f"{'BAD ' if wrong else 'ok  '} {words} {counts} | {seen.said[:150]}{wrong}", flush=True)
        if arguments.keep:
            with arguments.keep.open("a") as file:
                file.write(json.dumps(asdict(drill) | asdict(seen) | asdict(bench)) + "\n")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
