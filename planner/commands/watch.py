"""`planner watch`: a running stack against its plan, interval by interval."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from planner.commands import Config, Json, NoSave, Out, Set, console, overrides, progress, run_folder

if TYPE_CHECKING:
    from planner.system.resolve import System
    from planner.watching.effect import Changed
    from planner.watching.pd import Gaps, Seen, Verdict
    from planner.watching.scrape import Plan, Recorder, Role, Round
    from planner.watching.steps import Step

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
    since: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--before", metavar="FILE", help="A recording from before CONFIG was changed: did it help?"),
    ] = None,
    pd: Annotated[bool, typer.Option("--pd", help="Only say whether it is P/D.")] = False,
    changes: Annotated[bool, typer.Option("--changes", help="At the end: the three changes that buy most.")] = False,
    gaps: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--gaps", metavar="MEAN,MEDIAN,P99", help="Nothing else is known: a benchmark's ITL in ms."),
    ] = None,
    token: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--token", envvar="PLANNER_TOKEN", help="Bearer token of the addresses."),
    ] = None,
    assignments: Set = None,
    out: Out = None,
    as_json: Json = False,
    no_save: NoSave = False,
) -> None:
    """Predict a running stack from the traffic it has.

    Interval by interval, and it counts how often that holds.

    Reads the Prometheus /metrics of vLLM engines, whoever runs them; changes nothing.
    """
    from planner.report import printing
    from planner.spec import SpecError, dump, load, parse
    from planner.system.resolve import resolve
    from planner.watching.pd import from_aggregates
    from planner.watching.predict import levelled
    from planner.watching.scrape import Head, Recorder, read_recording
    from planner.watching.steps import Step, steps
    from planner.watching.tables import Parts, line_data
    from planner.watching.words import closing, line_text

    if gaps is not None:
        _say_verdict(from_aggregates(_gaps(gaps)), as_json)
        return
    given = assignments or []
    with ExitStack() as stack:
        rounds: Iterator[Round | Plan]
        if replay is not None:
            head, rounds = read_recording(replay)
            spec = load(config, given) if config else parse(head.config, str(replay), given)
        else:
            spec = load(config, overrides(assignments, None))
            engines = _Stack(resolve(spec), endpoint, metrics or [], token, every_s)
            rounds = _with_plans(stack.enter_context(engines), config, given)
            head = Head(dump(spec), every_s)
        rounds = islice(rounds, None if most is None else most + 1)
        if since is not None:
            earlier, past = read_recording(since)
            rounds = _after(past, rounds, dump(spec))
            spec, given, head = (
                parse(earlier.config, str(since)),
                [],
                Head(earlier.config, head.interval_s, head.source),
            )
        step = Step(spec, resolve(spec))
        if pd and not step.system.disaggregated:
            raise SpecError(f"--pd: {spec.name} is aggregated; allowed: a CONFIG with prefill and decode pools")
        recorder = stack.enter_context(Recorder(record, head)) if record is not None else None
        folder = None if no_save or replay is not None and out is None else run_folder(f"{spec.name}-watch", out)
        parts = Parts(folder) if folder is not None else None
        screen = console()
        try:
            for step in steps(_kept(rounds, recorder), spec, given, lines=not pd):
                if step.left_out and not as_json:
                    screen.print("An engine began anew or did not answer: this interval is left out.")
                if step.line is None:
                    continue
                if parts is not None:
                    parts.add(step)
                if as_json:
                    print(json.dumps(line_data(step.line), allow_nan=False), flush=True)
                    continue
                print(line_text(step.line, step.state), flush=True)
                for text in step.line.events:
                    printing.say(screen, f"  {text}")
        except KeyboardInterrupt:
            pass  # the way to end it
    if not pd and not as_json:
        printing.say(screen, closing(step.state))
    if step.system.disaggregated:
        _say_pd(step.seen, levelled(step.system, step.state.levels), as_json)
    if step.changed is not None:
        _say_changed(step.changed, changes, as_json)
    if changes:
        _say_changes(step, as_json)
    if folder is not None and not as_json and not pd:
        printing.say(screen, f"Intervals: {folder}")


def _kept(rounds: Iterable[Round | Plan], recorder: Recorder | None) -> Iterator[Round | Plan]:
    for found in rounds:
        if recorder is not None:
            recorder.add(found)
        yield found


def _after(past: Iterable[Round | Plan], rounds: Iterable[Round | Plan], config: str) -> Iterator[Round | Plan]:
    """A recording, then from the first round on what came with another plan."""
    from planner.watching.scrape import Plan

    yield from past
    for at, found in enumerate(rounds):
        if not at:
            yield Plan(found.time_s, config)
        yield found


def _with_plans(rounds: Iterable[Round], config: str | None, assignments: list[str]) -> Iterator[Round | Plan]:
    """The rounds, and a new plan wherever the file CONFIG has another one than before."""
    from planner.spec import SpecError, dump, load
    from planner.watching.scrape import Plan

    known = dump(load(config, assignments))
    for found in rounds:
        try:
            now = dump(load(config, assignments))
        except SpecError as error:
            print(f"{error}: the plan stays as it was", file=sys.stderr)
            now = known
        if now != known:
            yield Plan(found.time_s, now)
            known = now
        yield found


def _say_changed(changed: Changed, rates: bool, as_json: bool) -> None:
    from dataclasses import asdict

    from planner.report import printing
    from planner.watching.effect import effect_text, effects
    from planner.watching.gains import rates_of
    from planner.watching.watch import clock

    if as_json:
        found = [asdict(one) | {"as_predicted": one.as_predicted} for one in effects(changed)]
        print(json.dumps({"changed": {"what": changed.what, "effects": found}}, allow_nan=False))
        return
    printing.say(console(), effect_text(changed, clock(changed.at_s)))
    if rates:
        printing.say(console(), rates_of(changed).sentence)


def _say_changes(step: Step, as_json: bool) -> None:
    from dataclasses import asdict

    from planner.report import printing
    from planner.watching.gains import what_changes_buy

    bought = what_changes_buy(step.spec, step.state.window, step.state.levels, progress())
    if as_json:
        print(json.dumps({"changes": asdict(bought)}, allow_nan=False))
    for text in [] if as_json else bought.sentences():
        printing.say(console(), text)


def _gaps(text: str) -> Gaps:
    """MEAN,MEDIAN,P99 in ms. Raises SpecError."""
    from planner.spec import SpecError
    from planner.watching.pd import Gaps

    try:
        mean, median, p99 = (float(one) / 1e3 for one in text.split(","))
    except ValueError:
        mean = median = p99 = 0.0
    if not 0 < median <= p99 < math.inf or not 0 < mean <= p99:
        raise SpecError(f"--gaps {text}: allowed: MEAN,MEDIAN,P99 in ms, as 14.5,9.8,140")
    return Gaps(mean, median, p99)


def _say_pd(seen: Seen, system: System, as_json: bool) -> None:
    from planner.watching.pd import evidence, judge

    if seen.rounds:
        _say_verdict(judge(evidence(seen, system)), as_json)


def _say_verdict(found: Verdict, as_json: bool) -> None:
    from dataclasses import asdict

    from planner.report import printing

    if as_json:
        print(json.dumps({"pd": asdict(found)}, allow_nan=False))
        return
    printing.say(console(), found.sentence)
    for text in found.evidence:
        printing.say(console(), f"  {text}")


class _Stack:
    """Rounds of a running stack, one each `every_s` seconds. A context manager over an endless iterator."""

    def __init__(
        self, system: System, endpoint: str | None, metrics: list[str], token: str | None, every_s: float
    ) -> None:
        from planner.spec import SpecError

        option = "--metrics" if metrics else "--endpoint"
        named = [_named(text, option, system) for text in metrics or ([endpoint] if endpoint else [])]
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


def _named(text: str, option: str, system: System) -> tuple[Role, str]:
    """ROLE=URL; without a role the one that the deployment has. Raises SpecError."""
    from planner.spec import SpecError

    roles = [pool.role for pool in system.pools]
    role, mark, url = text.partition("=")
    if not mark or role not in ("aggregated", "prefill", "decode"):
        if len(roles) > 1:
            each = " ".join(f"--metrics {one}=URL" for one in roles)
            raise SpecError(f"{option} {text}: of which pool? allowed: {each}")
        role, url = roles[0], text
    if role not in roles:
        raise SpecError(f"{option} {text}: CONFIG has no {role} pool; allowed: {', '.join(roles)}")
    if not url.startswith(("http://", "https://")):
        raise SpecError(f"{option} {text}: is no URL; allowed: http://HOST:PORT")
    return role, url


def register(app: typer.Typer) -> None:
    app.command()(watch)
