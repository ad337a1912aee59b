"""`planner watch`: a running stack against its plan, interval by interval."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from planner.commands import Config, Json, NoSave, Out, Set, console, overrides, progress, run_folder

if TYPE_CHECKING:
    from planner.system.resolve import System
    from planner.watching.pd import Seen
    from planner.watching.scrape import Role, Round

EVERY_S = 60.0


def watch(
    config: Config = None,
    endpoint: Annotated[
        Optional[str],  # noqa: UP045 - typer reads the annotation when the command is built
        typer.Option("--endpoint", metavar="URL", help="The stack's OpenAI-compatible address."),
    ] = None,
    metrics: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--metrics",
            metavar="[ROLE=]URL",
            help="An engine's address; prefill=URL or decode=URL for a P/D CONFIG. Repeat. Default: the endpoint.",
        ),
    ] = None,
    every_s: Annotated[float, typer.Option("--every", metavar="S", min=1.0, help="Seconds of an interval.")] = EVERY_S,
    most: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--intervals", min=1, help="Stop after so many. Default: at Ctrl-C."),
    ] = None,
    record: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--record", metavar="FILE", help="Keep what was read, for --replay; .gz compresses it."),
    ] = None,
    replay: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--replay", metavar="FILE", help="A recording instead of a stack; CONFIG is in it."),
    ] = None,
    pd: Annotated[bool, typer.Option("--pd", help="Only say whether it is P/D.")] = False,
    changes: Annotated[bool, typer.Option("--changes", help="At the end: the three changes that buy most.")] = False,
    token: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--token", envvar="PLANNER_TOKEN", help="Bearer token of the addresses."),
    ] = None,
    assignments: Set = None,
    out: Out = None,
    as_json: Json = False,
    no_save: NoSave = False,
) -> None:
    """Predict a running stack's every interval from the traffic it has, and count how often that holds.

    Reads the Prometheus /metrics of vLLM engines, whoever runs them; changes nothing.
    """
    from dataclasses import asdict

    from planner.report import printing
    from planner.spec import SpecError, load, parse
    from planner.system.resolve import resolve
    from planner.watching.gains import what_changes_buy
    from planner.watching.observe import observe
    from planner.watching.pd import Seen
    from planner.watching.predict import levelled
    from planner.watching.scrape import Head, Recorder, read_recording
    from planner.watching.tables import Parts
    from planner.watching.watch import State, advance
    from planner.watching.words import closing, line_data, line_text

    with ExitStack() as stack:
        if replay is not None:
            head, rounds = read_recording(replay)
            spec = load(config, assignments or []) if config else parse(head.config, str(replay), assignments or [])
            system = resolve(spec)
        else:
            from planner.spec import dump

            spec = load(config, overrides(assignments, None))
            system = resolve(spec)
            rounds = stack.enter_context(_Stack(system, endpoint, metrics or [], token, every_s))
            head = Head(dump(spec), every_s)
        recorder = stack.enter_context(Recorder(record, head)) if record is not None else None
        folder = None if no_save or replay is not None and out is None else run_folder(f"{spec.name}-watch", out)
        parts = Parts(folder) if folder is not None else None
        screen, state, seen, done = console(), State(), Seen(), 0
        before: Round | None = None
        try:
            for found in rounds:
                if recorder is not None:
                    recorder.add(found)
                observed = None if before is None else observe(before, found)
                if before is not None and observed is None and not as_json:
                    screen.print("An engine began anew or did not answer: this interval is left out.")
                before = found
                if observed is None:
                    continue
                done += 1
                seen = seen.plus(observed)
                if not pd:
                    state, line = advance(state, observed, system)
                    if parts is not None:
                        parts.add(line)
                    if as_json:
                        print(json.dumps(line_data(line), allow_nan=False), flush=True)
                    else:
                        print(line_text(line, state), flush=True)
                        for text in line.events:
                            printing.say(screen, f"  {text}")
                if most is not None and done >= most:
                    break
        except KeyboardInterrupt:
            pass  # the way to end it
    if not pd and not as_json:
        printing.say(screen, closing(state))
    if system.disaggregated:
        _say_pd(seen, levelled(system, state.levels), as_json)
    elif pd:
        raise SpecError(f"--pd: {spec.name} is aggregated; allowed: a CONFIG with prefill and decode pools")
    if changes:
        bought = what_changes_buy(spec, state.window, state.levels, progress())
        if as_json:
            print(json.dumps({"changes": asdict(bought)}, allow_nan=False))
        for text in [] if as_json else bought.sentences():
            printing.say(screen, text)
    if folder is not None and not as_json and not pd:
        printing.say(screen, f"Intervals: {folder}")


def _say_pd(seen: Seen, system: System, as_json: bool) -> None:
    from dataclasses import asdict

    from planner.report import printing
    from planner.watching.pd import evidence, judge

    if not seen.rounds:
        return
    found = judge(evidence(seen, system))
    if as_json:
        print(json.dumps({"pd": asdict(found)}, allow_nan=False))
        return
    screen = console()
    printing.say(screen, found.sentence)
    for text in found.evidence:
        printing.say(screen, f"  {text}")


class _Stack:
    """Rounds of a running stack, one each `every_s` seconds. A context manager over an endless iterator."""

    def __init__(
        self, system: System, endpoint: str | None, metrics: list[str], token: str | None, every_s: float
    ) -> None:
        from planner.spec import SpecError

        named = [_named(text, system) for text in metrics or ([endpoint] if endpoint else [])]
        if not named:
            raise SpecError("--endpoint: missing; allowed: the stack's address, --metrics URL, or --replay FILE")
        counts: dict[str, int] = {}
        self.engines: list[tuple[str, Role, str]] = []
        for role, url in named:
            self.engines.append((f"{role}-{counts.get(role, 0)}", role, url))
            counts[role] = counts.get(role, 0) + 1
        for pool in system.pools:
            if pool.role not in counts:
                raise SpecError(f"--metrics: no {pool.role} engine; allowed: {pool.role}=URL for each of CONFIG's")
        self._endpoint, self._token, self._every_s = endpoint, token, every_s

    def __enter__(self) -> Iterator[Round]:
        from live.needs import need

        need(servers=False)
        from live.scrape import Scraper

        self._scraper = Scraper([url for _, _, url in self.engines], self._token)
        self._scraper.__enter__()
        try:
            self._scraper.check(self._endpoint)
        except BaseException:
            self._scraper.__exit__()
            raise
        return self._rounds()

    def __exit__(self, *_: object) -> None:
        self._scraper.__exit__()

    def _rounds(self) -> Iterator[Round]:
        from planner.watching.scrape import Round, Scrape

        due = time.monotonic()
        while True:
            answers = self._scraper.read()
            yield Round(
                time.time(),
                tuple(
                    Scrape(answer.time_s, name, role, answer.values)
                    for (name, role, _), answer in zip(self.engines, answers, strict=True)
                    if answer is not None
                ),
            )
            due = max(due + self._every_s, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))


def _named(text: str, system: System) -> tuple[Role, str]:
    """ROLE=URL; without a role the one that the deployment has. Raises SpecError."""
    from planner.spec import SpecError

    roles = [pool.role for pool in system.pools]
    role, mark, url = text.partition("=")
    if not mark or role not in ("aggregated", "prefill", "decode"):
        if len(roles) > 1:
            raise SpecError(f"--metrics {text}: of which pool? allowed: {' or '.join(f'{one}=URL' for one in roles)}")
        role, url = roles[0], text
    if role not in roles:
        raise SpecError(f"--metrics {text}: CONFIG has no {role} pool; allowed: {', '.join(roles)}")
    if not url.startswith(("http://", "https://")):
        raise SpecError(f"--metrics {text}: is no URL; allowed: http://HOST:PORT, with ROLE= before it or not")
    return role, url


def register(app: typer.Typer) -> None:
    app.command()(watch)
