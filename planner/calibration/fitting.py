"""Least squares from measured seconds to the parameters of the step law.

A step law is linear in its parameters but for the prefill floor and the stretches of features, so a row of measurements
is a bag of features (see planner.engine.law) and its seconds. Residuals are relative. The loss is soft_l1, so
that a hiccup of the machine does not pull the fit; the covariance is that of an M-estimator (Huber 1973):
cov = sum(psi^2) / (rows - parameters) / mean(psi')^2 * (J'J)^-1, J in units of the noise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

from planner.engine.law import (
    FEATURES,
    FLOOR,
    PAIRS,
    PROGRESSION,
    PROMPTS,
    SHAPES,
    TERMS,
    TOKENS,
    Feature,
    StepLaw,
    Stretch,
    of_part,
)
from planner.engine.profile_file import Fit, Residual
from planner.spec.strict_yaml import SpecError

Array = NDArray[np.float64]

# A row may span several steps, at most one of them with prompts. `sync` counts the steps of an engine that schedules
# synchronously: they carry a host overhead that asynchronous scheduling hides. `posts` descriptors of large KV
# transfers and `few` of small ones were posted by `posting` steps while the GPU waited, `beside` of `posts` while the
# one that is read from computed; `known_s` is known to be no step's. In `sending` seconds KV was read;
# `warmth` is that of the GPU times seconds, and WARMED are features times the warmth of the steps that have them.
SYNC = "sync_s"
POSTS = ("posts", "few", "posting", "beside")
SLOWED = {  # what a warm GPU makes longer
    name: feature for name, feature in of_part("line", "prompt").items() if feature in (PROMPTS, TOKENS, PAIRS)
}
WARMED = {f"warm_{name}": name for name in SLOWED}
OBSERVATION_COLUMNS = (
    "kind", "seconds", "known_s", *POSTS, "sending", "warmth", *WARMED, "decode_seqs", *FEATURES, "sync"
)  # fmt: skip
LAW = tuple(name for name, term in TERMS.items() if term.part not in ("launch", "shape"))
# The terms of a row that are added up, and those of the line, which the floor bounds.
SUMMED: dict[str, Feature] = of_part("decode", "context", "prompt") | {SYNC: Feature("sync", "", lambda *_: 0.0)}
LINE: dict[str, Feature] = of_part("line")
STRETCHES: dict[str, tuple[str, Stretch]] = {  # the fitted parameter -> the term that it stretches
    feature.stretch.fitted: (name, feature.stretch) for name, feature in SUMMED.items() if feature.stretch
}
GIVEN = tuple(stretch.given for _, stretch in STRETCHES.values())
ROBUST_FROM = 2.0  # residuals beyond so many standard deviations count less
OWN_NOISE_ROWS = 200  # a kind of rows with at least so many has its own noise
SHORT_PROMPT = 64  # tokens; a floor shows at such prompts if there is one
LEAST_NOISE = 1e-3  # no clock and no machine repeats a step more exactly
NEARER = 0.98  # what else may be noise
TOLD = 2  # standard errors from nothing, for a term that has a tie to fall back on
LEAST_PARTLY = 5  # rows that show a stretch's parameter: partly filled waves
PRIOR_WIDTH = 1.0  # relative standard deviation of a parameter that is taken from a prior


class FitError(SpecError):
    """Measurements that do not determine the law: one line that says what to measure."""


@dataclass(frozen=True)
class Fitted:
    """A fitted vector. `covariance` is over `names`; a parameter raised to its lower bound is not among them."""

    values: dict[str, float]
    names: tuple[str, ...]
    covariance: Array
    residuals: dict[str, Residual]
    raised: tuple[str, ...]
    rows: int
    ties: dict[str, str]  # parameter -> the one that it was set equal to

    @property
    def standard_errors(self) -> dict[str, float]:
        errors = dict(zip(self.names, (float(value) for value in np.sqrt(np.diag(self.covariance))), strict=True))
        return errors | {name: errors[other] for name, other in self.ties.items() if other in errors}


def observations(columns: Mapping[str, object]) -> pd.DataFrame:
    """A table of rows for `fit_step`; counts that are not given are zero."""
    frame = pd.DataFrame(dict(columns))
    for name in OBSERVATION_COLUMNS:
        if name not in frame:
            frame[name] = 0.0
    return frame[list(OBSERVATION_COLUMNS)].astype({name: "float64" for name in OBSERVATION_COLUMNS if name != "kind"})


def _counts(feature: Feature, values: Mapping[str, float], rows: pd.DataFrame) -> Array:
    """The feature of each row under `values`."""
    counts = rows[feature.column].to_numpy()
    return counts if feature.stretch is None else counts * feature.factor(rows["decode_seqs"].to_numpy(), values)[0]


def _sum(parts: Mapping[str, Feature], values: Mapping[str, float], rows: pd.DataFrame) -> Array:
    seconds: Array = np.zeros(len(rows))
    for name, feature in parts.items():
        if value := values.get(name, 0.0):
            seconds = seconds + value * _counts(feature, values, rows)
    return seconds


def _line(values: Mapping[str, float], rows: pd.DataFrame) -> tuple[Array, Array]:
    """What the terms of the line and the floor below it make of each row."""
    return _sum(LINE, values, rows), values[FLOOR] * rows["mixed_steps"].to_numpy()


def decode_seconds(values: Mapping[str, float], rows: pd.DataFrame) -> Array:
    """Seconds of the decode-only steps of each row."""
    return _sum(of_part(*PROGRESSION), values, rows)


def warmed_s(values: Mapping[str, float], rows: pd.DataFrame, warm_slowing: float) -> Array:
    """Seconds that prompts of each row take longer than on a rested GPU."""
    more: Array = sum((values[name] * rows[column].to_numpy() for column, name in WARMED.items()), np.zeros(len(rows)))
    return (warm_slowing - 1.0) * more


def predict(values: Mapping[str, float], rows: pd.DataFrame) -> Array:
    """Seconds of each row under the law."""
    known: Array = rows["known_s"].to_numpy(dtype=float)
    return known + _sum(SUMMED, values, rows) + np.maximum(*_line(values, rows))


def _slopes(name: str, values: Mapping[str, float], rows: pd.DataFrame, above: NDArray[np.bool_]) -> Array:
    """d seconds / d parameter, analytic: the floor counts where it is the larger one."""
    if name in STRETCHES:
        term, _ = STRETCHES[name]
        feature = SUMMED[term]
        slope = feature.factor(rows["decode_seqs"].to_numpy(), values)[1]
        return np.asarray(rows[feature.column].to_numpy() * values[term] * slope)
    if name == FLOOR:
        return np.asarray(rows["mixed_steps"].to_numpy() * ~above)
    if name in LINE:
        return np.asarray(_counts(LINE[name], values, rows) * above)
    return _counts(SUMMED[name], values, rows)


def _jacobian(values: Mapping[str, float], rows: pd.DataFrame, names: tuple[str, ...]) -> Array:
    line, floor = _line(values, rows)
    found = [_slopes(name, values, rows, line >= floor) for name in names]
    return np.column_stack(found) if found else np.zeros((len(rows), 0))


def _start(names: tuple[str, ...], rows: pd.DataFrame, prior: Mapping[str, float]) -> dict[str, float]:
    """Where the search begins: the prior, else a plain least-squares solution with the floor taken as the prefill."""
    guess = {name: prior.get(name, 0.0) for name in (*LAW, *SHAPES, SYNC)}
    if all(prior.get(name) for name in names if name != SYNC):
        return guess
    seconds = rows["seconds"].to_numpy()
    free = tuple(name for name in names if name != FLOOR and name not in STRETCHES)
    matrix = _jacobian(dict.fromkeys((*LAW, *SHAPES, SYNC), 0.0), rows, free) / seconds[:, None]
    scale = np.where((norm := np.linalg.norm(matrix, axis=0)) > 0, norm, 1.0)
    left = 1.0 - rows["known_s"].to_numpy() / seconds
    solution = np.linalg.lstsq(matrix / scale, left, rcond=None)[0] / scale
    guess |= dict(zip(free, np.maximum(solution, 0.0).tolist(), strict=True))
    prompts = rows[(rows["mixed_steps"] > 0) & (rows["mixed_seqs"] == 0)]
    if len(prompts) and FLOOR in names:
        guess[FLOOR] = float(prompts["seconds"].min())
    return guess


def _solve(
    names: tuple[str, ...], start: Mapping[str, float], rows: pd.DataFrame, prior: Mapping[str, float], noise: Array
) -> tuple[dict[str, float], Array, Array]:
    """Best values of `names` from `start`, whose others stay; the Jacobians of rows and prior in units of the noise."""
    seconds = rows["seconds"].to_numpy()
    weighted = tuple(name for name in names if prior.get(name))
    picks = np.array([[float(name == other) for other in names] for name in weighted]).reshape(-1, len(names))
    centre = np.array([prior[name] for name in weighted])

    def values(x: Array) -> dict[str, float]:
        return dict(start) | dict(zip(names, x.tolist(), strict=True))

    def residual(x: Array) -> Array:
        data = (predict(values(x), rows) / seconds - 1.0) / (noise * ROBUST_FROM)
        pull = (picks @ x / centre - 1.0) / (PRIOR_WIDTH * ROBUST_FROM) if len(weighted) else np.zeros(0)
        return np.concatenate([data, pull])

    def jacobian(x: Array) -> Array:
        data = _jacobian(values(x), rows, names) / (seconds * noise * ROBUST_FROM)[:, None]
        pull = picks / centre[:, None] / (PRIOR_WIDTH * ROBUST_FROM)
        return np.vstack([data, pull])

    x0 = np.array([max(start[name], 1e-12) for name in names])
    found = least_squares(residual, x0, jacobian, bounds=(0.0, np.inf), loss="soft_l1", x_scale="jac", max_nfev=500)
    design = jacobian(found.x) * ROBUST_FROM
    return values(found.x), design[: len(rows)], design[len(rows) :]


def covariance_of(design: Array, z: Array, pull: Array | None = None) -> Array:
    """Covariance of an M-estimator. `design` and `z` (residuals) are in units of the noise; `pull` are prior rows."""
    count = design.shape[1]
    prior = np.zeros((0, count)) if pull is None else pull
    scale = np.linalg.norm(np.vstack([design, prior]), axis=0)
    unclear = FitError("the rows do not determine every parameter; measure more lengths and batches, or give a prior")
    if (scale == 0).any() or np.linalg.matrix_rank(np.vstack([design, prior]) / scale) < count:
        raise unclear
    u = z / ROBUST_FROM
    psi, slopes = z / np.sqrt(1.0 + u * u), (1.0 + u * u) ** -1.5
    slope = float(np.mean(slopes))
    few = 1.0 + count / len(z) * float(np.var(slopes)) / slope**2  # Huber's correction for few rows
    data, held = (design / scale).T @ (design / scale), (prior / scale).T @ (prior / scale)
    try:
        bread = np.linalg.inv(slope * data + held)
    except np.linalg.LinAlgError:
        raise unclear from None
    meat = few**2 * float(np.sum(psi * psi)) / max(len(z) - count, 1) * data + held
    found = np.asarray(bread @ meat @ bread / np.outer(scale, scale))
    if not (np.diag(found) >= 0).all():  # nearly so: all that is left of a variance is rounding
        raise unclear
    return found


def _noise(kinds: pd.Series, wrong: Array) -> Array:
    """Relative standard deviation of each row: of its kind where that has many rows, of all small kinds together."""
    group = kinds.where(kinds.map(kinds.value_counts()) >= OWN_NOISE_ROWS, "")
    size = pd.Series(np.abs(wrong), index=kinds.index).groupby(group).transform("median")
    return np.maximum(1.4826 * size.to_numpy(dtype=float), LEAST_NOISE)


def _check(rows: pd.DataFrame) -> None:
    if rows.empty:
        raise FitError("no rows to fit; allowed: at least one measured step")
    bad = ~(np.isfinite(rows["seconds"].to_numpy()) & (rows["seconds"].to_numpy() > 0))
    if bad.any():
        raise FitError(
            f"{int(bad.sum())} of {len(rows)} rows have no positive duration; allowed: finite seconds above 0"
        )


def _tied(rows: pd.DataFrame, always: Collection[str] = ()) -> tuple[pd.DataFrame, dict[str, str]]:
    """Rows with the columns merged that cannot be told apart, or not `always`, and {parameter: the one it equals}."""
    measured, ties = rows, dict[str, str]()
    for name, term in TERMS.items():
        if term.tie is None or not _shown(name, measured) or (name not in always and term.tie[1](measured)):
            continue
        other = ties[name] = term.tie[0]
        mine, column = SUMMED[name].column, SUMMED[other].column
        rows = rows.assign(**{column: rows[column] + rows[mine], mine: 0.0 * rows[mine]})
    return rows, ties


def residuals(values: Mapping[str, float], rows: pd.DataFrame) -> dict[str, Residual]:
    """Mean and largest error in percent, by kind of row."""
    wrong = pd.Series(100.0 * np.abs(predict(values, rows) / rows["seconds"].to_numpy() - 1.0), index=rows.index)
    return {
        str(kind): Residual(
            rows=len(part), mean_abs_pct=round(float(part.mean()), 2), max_abs_pct=round(float(part.max()), 2)
        )
        for kind, part in wrong.groupby(rows["kind"])
    }


def fit_step(
    rows: pd.DataFrame,
    prior: StepLaw | None = None,
    bound: StepLaw | None = None,
    *,
    floored: bool = True,
    given: Mapping[str, float] | None = None,
) -> Fitted:
    """The law's parameters from `observations`.

    `prior` fills in what the rows do not say, with a standard deviation of its own size; `bound` is the hardware's
    roofline: a parameter below it is raised to it and named. Not `floored`: steps that launches hide are not among the
    rows, and the prefill floor is the roofline's. `given` are shapes (see planner.engine.law); those of a stretch are
    taken where decodes are nearer to the law with it. Raises FitError when the rows leave a parameter open.
    """
    _check(rows)
    given = given or {}
    alone = {name: value for name, value in given.items() if name not in GIVEN}
    plain = _fit(rows, prior, bound, floored, alone)
    if not any(given.get(stretch.given) for _, stretch in STRETCHES.values()):
        return plain
    try:
        stretched = _fit(rows, prior, bound, floored, given)
    except FitError:  # with no sign of a tail there is nothing that would determine it
        return plain
    off = [float(np.mean(np.abs(_decode_errors(one.values, rows)))) for one in (stretched, plain)]
    return stretched if any(name in STRETCHES for name in stretched.names) and off[0] < NEARER * off[1] else plain


def _decode_errors(values: Mapping[str, float], rows: pd.DataFrame) -> Array:
    decodes = rows[rows["mixed_steps"] == 0]
    return np.asarray(predict(values, decodes) / decodes["seconds"].to_numpy() - 1.0)


def _fit(
    rows: pd.DataFrame, prior: StepLaw | None, bound: StepLaw | None, floored: bool, given: Mapping[str, float]
) -> Fitted:
    """A fit, and another one with those terms tied that the rows do not tell.

    They came out beyond what they can be (`Term.most`), or their own error leaves nearly anything possible: a load
    would multiply them by batches many times as large as those that the calibration had beside its prompts.
    """
    found = _fit_tied(rows, prior, bound, floored, given, ())
    errors = found.standard_errors
    far = [
        name
        for name, term in TERMS.items()
        if term.tie
        and (
            found.values.get(name, 0.0) > term.most * found.values[term.tie[0]]
            or found.values.get(name, 0.0) < TOLD * errors.get(name, 0.0)
        )
    ]
    return _fit_tied(rows, prior, bound, floored, given, far) if far else found


def _fit_tied(
    rows: pd.DataFrame,
    prior: StepLaw | None,
    bound: StepLaw | None,
    floored: bool,
    given: Mapping[str, float],
    always: Collection[str],
) -> Fitted:
    measured = rows
    rows, ties = _tied(rows, always)
    guess = {name: float(getattr(prior, name)) for name in LAW if name not in ties} if prior else {}
    low = {name: float(getattr(bound, name)) for name in LAW} if bound else {}
    names = tuple(name for name in LAW if name not in ties and _shown(name, rows))
    shapes = {name: value for name, value in given.items() if name not in GIVEN}
    for name, (term, stretch) in STRETCHES.items():
        tried = {stretch.given: given.get(stretch.given, 0.0), name: stretch.start}
        if tried[stretch.given]:
            slopes = SUMMED[term].factor(rows["decode_seqs"].to_numpy(), tried)[1]
            if (slopes * rows[SUMMED[term].column] > 0).sum() >= LEAST_PARTLY:
                names += (name,)
                shapes |= tried
    if 0 < rows["sync"].sum() < (rows["decode_steps"] + rows["mixed_steps"]).sum():
        names += (SYNC,)
    else:
        rows = rows.assign(sync=0.0)
    seconds = rows["seconds"].to_numpy()
    held = {} if floored else {FLOOR: low.get(FLOOR, 0.0)}
    while True:
        free = tuple(name for name in names if name not in held)
        values = _start(free, rows, guess) | shapes | held
        noise = np.full(len(rows), 0.03)
        for _ in range(4):  # the noise is found with the fit
            values, design, pull = _solve(free, values, rows, guess, noise)
            wrong = predict(values, rows) / seconds - 1.0
            used, noise = noise, _noise(rows["kind"], wrong)
        below = {name: low[name] for name in free if values[name] < low.get(name, 0.0)}
        if not below and FLOOR in free and _no_floor(values, rows, bool(guess)):
            below = {FLOOR: low.get(FLOOR, 0.0)}
        if not below:
            break
        held |= below
    covariance = covariance_of(design, wrong / used, pull)
    values |= {name: values[other] for name, other in ties.items()}
    raised = tuple(name for name, value in held.items() if value > 0 and (floored or name != FLOOR))
    return Fitted(values, free, covariance, residuals(values, measured), raised, len(rows), ties)


def _shown(name: str, rows: pd.DataFrame) -> bool:
    """Whether a parameter is to be fitted: a term that a law may lack needs a row that has its feature."""
    term, feature = TERMS[name], TERMS[name].feature
    if StepLaw.model_fields[name].is_required():
        return True
    return feature is not None and bool((rows[feature.column] > 0).any()) and term.told(rows)


def _no_floor(values: Mapping[str, float], rows: pd.DataFrame, guessed: bool) -> bool:
    """Short prompts were measured, and all of them lie on the line: a CPU launches no kernels."""
    prompts = rows[rows["mixed_steps"] > 0]
    if guessed or prompts.empty or prompts["prefill_tokens"].min() > SHORT_PROMPT:
        return False
    line, floor = _line(values, prompts.nsmallest(1, "prefill_tokens"))
    return bool(line[0] >= floor[0])


def law_of(fitted: Fitted) -> StepLaw:
    """The step law of a fit, without the host overhead of synchronous rows."""
    return StepLaw(**{name: fitted.values.get(name, 0.0) for name in StepLaw.model_fields})


def with_launches(fitted: Fitted, values: Mapping[str, float], errors: Mapping[str, float]) -> Fitted:
    """The fit with the host's launch terms, which were fitted apart, in its values, names and covariance."""
    names = (*fitted.names, *values)
    covariance = np.zeros((len(names), len(names)))
    covariance[: len(fitted.names), : len(fitted.names)] = fitted.covariance
    covariance[range(len(fitted.names), len(names)), range(len(fitted.names), len(names))] = [
        errors[name] ** 2 for name in values
    ]
    return replace(fitted, values={**fitted.values, **values}, names=names, covariance=covariance)


def record(fitted: Fitted, method: str, host_errors: Mapping[str, float] | None = None) -> Fit:
    """What a profile keeps of a fit; the nuisance term of synchronous rows is left out."""
    keep = [index for index, name in enumerate(fitted.names) if name != SYNC]
    covariance = fitted.covariance[np.ix_(keep, keep)]
    return Fit(
        method=method,
        parameters=tuple(fitted.names[index] for index in keep),
        standard_errors={name: digits(value) for name, value in fitted.standard_errors.items() if name != SYNC},
        covariance=tuple(tuple(digits(value) for value in row) for row in covariance.tolist()),
        host_errors={name: digits(value) for name, value in (host_errors or {}).items()},
        residuals=fitted.residuals,
        raised=fitted.raised,
        ties=fitted.ties,
    )


def digits(value: float, count: int = 6) -> float:
    """Rounded to `count` significant digits, for files that people read."""
    return float(f"{value:.{count}g}")
