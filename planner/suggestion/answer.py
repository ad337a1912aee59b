"""What `suggest` answers, as types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from planner.spec import Slo
from planner.suggestion.probe import Pace, Period
from planner.suggestion.search import Found
from planner.suggestion.splits import Split
from planner.suggestion.verdict import Advantage, Word


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate at a rate within the targets: speed for a user against output of a GPU."""

    name: str
    rate: float
    tokens_s_user: float
    output_tokens_s_gpu: float


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate. Rates in requests per second; `per_gpu` and tokens are over all GPUs asked for, idle ones too.

    `searches` has one result a seed; only candidates close to the best of their mode are `refined`: run with every
    seed. Their `rate` is that at which all runs together just meet the targets, `low` and `high` its 95 % interval.
    The others have one search's highest rate that passed in all three.
    """

    split: Split
    name: str
    gpus: int  # used
    idle: int
    guess: float  # closed form, where the search began
    rate: float
    low: float
    high: float
    per_gpu: float
    output_tokens_s_gpu: float
    tokens_s_user: float
    cost_per_million_tokens: float | None
    cost_per_million_output_tokens: float | None
    searches: tuple[Found, ...]
    refined: bool = False
    pace: Pace | None = None  # that its runs began with

    @property
    def mode(self) -> str:
        return self.split.mode

    @property
    def seeds(self) -> int:
        return len(self.searches)

    def period(self, period: Period | None) -> Period | None:
        """That of further runs of it, which begin at the pace of those before, or that these told."""
        pace = self.pace or (Pace(self.rate, 1 / self.tokens_s_user) if self.tokens_s_user > 0 else None)
        return period and replace(period, pace=pace)

    def to_dict(self) -> dict[str, Any]:
        data = {name: getattr(self, name) for name in type(self).__slots__ if name not in ("split", "searches", "pace")}
        prefill, decode = self.split.first, self.split.second
        pools = (
            {"aggregated": prefill.to_dict()}
            if decode is None
            else {"prefill": prefill.to_dict(), "decode": decode.to_dict()}
        )
        return {
            "mode": self.mode,
            "pools": pools,
            **data,
            "tuning": asdict(self.split.tuning),
            "rates": [found.rate for found in self.searches],
        }


def rank(row: Row) -> tuple[float, int, str]:
    """Highest rate first, then fewest GPUs."""
    return (-row.rate, row.gpus, row.name)


TIE = 0.99  # rates within 1 % are equal: that is how finely they are searched


def best_of(rows: Sequence[Row], mode: str) -> Row | None:
    """The best candidate of a mode that meets the targets at any rate; of equal ones that with the smallest engines."""
    searched = [row for row in rows if row.mode == mode and row.rate > 0 and row.refined]
    top = max((row.rate for row in searched), default=0.0)
    equal = [row for row in searched if row.rate >= TIE * top]
    return min(equal, key=lambda row: (row.split.largest_tp, rank(row)), default=None)


@dataclass(frozen=True, slots=True)
class EqualRate:
    """Both candidates offered the same requests at one rate: what share is within the targets."""

    rate: float
    disaggregated: float
    aggregated: float


@dataclass(frozen=True, slots=True)
class Change:
    """What the comparison becomes when one thing is 20 % more or less. None: one of the two meets no rate then."""

    what: str
    advantage: float | None
    word: str


@dataclass(frozen=True, slots=True)
class EnoughLink:
    """The slowest wire with which the split serves nearly what it would with endless ones. Bytes a second."""

    bytes_s: float
    now_bytes_s: float
    rate: float


@dataclass(frozen=True)
class Verdict:
    """The comparison, and the reasons where they were asked for."""

    word: Word
    advantage: Advantage
    margin: float
    error: float  # how far rates may be off, as a share
    unmeasured: str | None = None  # what about the split's hand-overs nobody has measured
    at_equal_rate: EqualRate | None = None
    why: tuple[str, ...] = ()  # what limits the best split, and the best aggregated deployment
    enough_link: EnoughLink | None = None  # where the link limits the split
    changes: tuple[Change, ...] = ()
    change: str = ""  # one sentence


@dataclass(frozen=True, slots=True)
class Check:
    """What was run for real. `kind`: checked, partly checked, or not checked with the reason."""

    kind: str
    sentence: str
    tested: tuple[str, ...] = ()
    untested: tuple[str, ...] = ()
    errors: dict[str, dict[str, float]] = field(default_factory=dict)  # candidate -> metric -> predicted / measured - 1


@dataclass(frozen=True)
class Smallest:
    """The fewest GPUs that serve `rate`; None where none up to `limit` do."""

    rate: float
    gpus: int | None
    name: str | None
    aggregated_gpus: int | None
    disaggregated_gpus: int | None
    limit: int
    possible: bool = True  # False: engines miss the targets even nearly idle


@dataclass(frozen=True)
class Suggestion:
    """The answer for N GPUs. `rows` are ranked, best first."""

    gpus: int
    model: str
    hardware: str
    slo: Slo
    requests: int | None  # asked for, of the best candidate in a run; None: the workload has a length of its own
    seeds: int  # lists of requests that the best were run with
    provenance: str  # in brackets, for the sentence
    rows: tuple[Row, ...]
    verdict: Verdict | None  # None: only one mode is possible
    sentence: str
    yaml: str  # the suggested deployment
    pareto: tuple[Point, ...]
    notes: tuple[str, ...]
    smallest: Smallest | None = None
    check: Check | None = None
    period: Period | None = None  # of traffic in a run; None: the workload's own list
    as_good: tuple[str, ...] = ()  # candidates whose rate cannot be told from the suggested one's
    groups: int = 1  # of equal GPUs, one of which was searched
    seeds_asked: int = 0  # as many lists as it might have been; 0: no more

    @property
    def best(self) -> Row:
        return self.rows[0]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; numbers that are unknown are null. Nothing in it depends on how the work was spread."""
        return {
            "answer": self.sentence,
            "gpus": self.gpus,
            "model": self.model,
            "hardware": self.hardware,
            "targets": self.slo.model_dump(),
            "requests": self.requests,
            "seeds": self.seeds,
            "seeds_asked": self.seeds_asked or self.seeds,
            "groups": self.groups,
            "run_seconds": self.period and self.period.seconds,
            "run_warmup_s": self.period and self.period.warmup_s,
            "run_after_s": self.period and self.period.after_s,
            "as_good": list(self.as_good),
            "provenance": self.provenance,
            "verdict": None if self.verdict is None else asdict(self.verdict),
            "candidates": [row.to_dict() for row in self.rows],
            "pareto": [asdict(point) for point in self.pareto],
            "smallest": None if self.smallest is None else asdict(self.smallest),
            "check": None if self.check is None else asdict(self.check),
            "notes": list(self.notes),
            "yaml": self.yaml,
        }
