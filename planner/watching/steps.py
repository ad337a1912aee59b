"""A watch from its first round to its last: what the command, the page and the tests go through alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from planner.spec import Spec, parse
from planner.system.resolve import System, resolve
from planner.watching.effect import ENOUGH, Changed, differences, effect_text
from planner.watching.observe import observe
from planner.watching.pd import Seen
from planner.watching.scrape import Plan, Round
from planner.watching.watch import Line, State, advance, clock, replanned

NEW, UNSEEN = State(), Seen()


@dataclass(frozen=True, slots=True)
class Step:
    """All that is known after one more interval. `line` is None where nothing could be said of it."""

    spec: Spec
    system: System
    state: State = NEW
    seen: Seen = UNSEEN
    line: Line | None = None
    changed: Changed | None = None
    left_out: bool = False


def steps(
    rounds: Iterable[Round | Plan], spec: Spec, assignments: Sequence[str] = (), lines: bool = True
) -> Iterator[Step]:
    """A step for each interval between two rounds. Raises SpecError for a plan that is none.

    `assignments` are set in every plan. Without `lines` nothing is predicted: enough to say whether it is P/D.
    """
    step = Step(spec, resolve(spec))
    before: Round | None = None
    for found in rounds:
        if isinstance(found, Plan):
            planned = _planned(step, found, assignments)
            if planned is not step:
                step, before = planned, None  # the interval in which it changed is of neither plan
            continue
        observed = None if before is None else observe(before, found)
        left_out = before is not None and observed is None
        before = found
        step = replace(step, line=None, left_out=left_out)
        if observed is not None:
            step = replace(step, seen=step.seen.plus(observed))
            if lines:
                state, line = advance(step.state, observed, step.system)
                changed = step.changed.plus(observed) if step.changed else None
                if changed is not None and len(changed.after) == ENOUGH:
                    line = replace(line, events=(*line.events, effect_text(changed, clock(changed.at_s))))
                step = replace(step, state=state, line=line, changed=changed)
        if observed is not None or left_out:
            yield step


def _planned(step: Step, plan: Plan, assignments: Sequence[str]) -> Step:
    """The step with another plan. The evidence of P/D begins anew: it is of one deployment."""
    spec = parse(plan.config, "plan", assignments)
    what = differences(step.spec, spec)
    if not what:
        return step
    system = resolve(spec)
    changed = Changed(plan.time_s, what, step.system, system, step.state.levels, step.state.window)
    return replace(step, spec=spec, system=system, state=replanned(step.state), seen=Seen(), changed=changed)
