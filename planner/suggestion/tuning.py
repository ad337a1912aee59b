"""The knobs that each candidate of a comparison sets for itself, so that neither side is left untuned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import product
from typing import Literal

from planner.spec import Aggregated, Disaggregated, Engine, PoolSpec, Sessions, Spec

Connector = Literal["NixlConnector", "NixlPushConnector"]

# vLLM's defaults are within these; below 512 a step is too short to fill a GPU, above 16384 few prompts are longer.
BUDGETS = (512, 1024, 2048, 4096, 8192, 16384)
BLOCK_SIZES = (16, 64, 128)  # tokens of a KV block; larger ones make fewer pieces of a hand-over
CONNECTORS: tuple[Connector, ...] = ("NixlConnector", "NixlPushConnector")
STICKY = "session_affinity"
# Of sessions: turns go where their history is cached, at any load; wherever there is least to do; or between both.
ROUTINGS = (STICKY, "least_loaded", "prefix_aware")


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a candidate sets over the spec; None: the spec's. The budget is the prefill pool's where there is one."""

    max_num_batched_tokens: int | None = None
    block_size: int | None = None
    connector: Connector | None = None
    router: str | None = None  # its policy, in front of every pool

    @property
    def text(self) -> str:
        """max_num_batched_tokens 1024, block_size 128; empty where nothing is set."""
        known = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return ", ".join(f"{name} {_shown(value)}" for name, value in known if value is not None)

    def set_on(self, spec: Spec) -> Spec:
        """The spec with these values over its own."""
        if self.router is not None:
            router = spec.deployment.router.model_copy(update={"policy": self.router})
            deployment = spec.deployment.model_copy(update={"router": router})
            spec = spec.model_copy(update={"deployment": deployment})
        deployment, engine = spec.deployment, spec.engine
        budget = {} if self.max_num_batched_tokens is None else {"max_num_batched_tokens": self.max_num_batched_tokens}
        if isinstance(deployment, Aggregated):
            return spec.model_copy(update={"engine": engine.model_copy(update=budget)}) if budget else spec
        if self.block_size is not None:
            engine = engine.model_copy(update={"block_size": self.block_size})
        link = {} if self.connector is None else {"connector": self.connector}
        prefill = deployment.prefill
        if budget:
            own = (prefill.engine or Engine()).model_copy(update=budget)
            prefill = prefill.model_copy(update={"engine": own})
        pools = {"prefill": prefill, "link": deployment.link.model_copy(update=link)}
        return spec.model_copy(update={"engine": engine, "deployment": deployment.model_copy(update=pools)})


UNTUNED = Tuning()


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _given(spec: Spec, name: str) -> bool:
    """Whether the file says what this engine option is. Such a value is kept."""
    deployment = spec.deployment
    pools = () if isinstance(deployment, Aggregated) else (deployment.prefill, deployment.decode)
    own = [pool.engine for pool in pools if isinstance(pool, PoolSpec) and pool.engine is not None]
    return any(name in engine.model_fields_set for engine in (spec.engine, *own))


def is_routed(spec: Spec) -> bool:
    """Whether the file says which router there is."""
    deployment = spec.deployment
    pools = () if isinstance(deployment, Aggregated) else (deployment.prefill, deployment.decode)
    given = deployment.router.model_fields_set
    return bool({"policy", "preset"} & given) or any(pool.router is not None for pool in pools)


def routes(spec: Spec) -> bool:
    """Whether a router is to be chosen: it matters where histories are cached, and there are workers to choose from."""
    if not isinstance(spec.workload, Sessions) or is_routed(spec):
        return False
    deployment = spec.deployment
    if isinstance(deployment, Aggregated):
        return deployment.replicas > 1
    return max(deployment.prefill.replicas, deployment.decode.replicas) > 1


def knobs(spec: Spec, posts: bool) -> Iterator[list[dict[str, object]]]:
    """The values to try of each knob for this spec's deployment, as fields of a `Tuning`; not those that the file sets.

    `posts`: hand-overs cost a worker time for each piece, so that pieces and who posts them matter. These are one knob,
    since who should post depends on how many pieces there are: pull stops the decode worker for each of them, push
    makes a prompt wait for the step under way on the prefill worker. It goes first: while posts hold a split back, a
    budget that helps a little may be one that costs much later. Large blocks are seldom beaten: others are run once.
    Then who is routed where.
    """
    if isinstance(spec.deployment, Disaggregated) and posts:
        blocks = _values("block_size", BLOCK_SIZES[::-1], _given(spec, "block_size"))
        connectors = _values("connector", CONNECTORS, "connector" in spec.deployment.link.model_fields_set)
        yield [block | connector for block, connector in product(blocks, connectors)]
    if routes(spec):
        yield _values("router", ROUTINGS, given=False)
    yield _values("max_num_batched_tokens", BUDGETS, _given(spec, "max_num_batched_tokens"))


def _values(name: str, values: Iterable[object], given: bool) -> list[dict[str, object]]:
    """One that changes nothing where the file gives it."""
    return [{}] if given else [{name: value} for value in values]


def kept(spec: Spec) -> list[str]:
    """The knobs of a comparison that the file sets, which are therefore not searched."""
    found = [f"engine.{name}" for name in ("max_num_batched_tokens", "block_size") if _given(spec, name)]
    if isinstance(spec.workload, Sessions) and is_routed(spec):
        found.append("deployment.router.policy")
    if isinstance(spec.deployment, Disaggregated):
        found += ["deployment.link.connector"] if "connector" in spec.deployment.link.model_fields_set else []
    return found
