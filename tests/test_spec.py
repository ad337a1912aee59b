"""Reading and writing of the YAML: every fault is one line, and what is written is read back the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.spec import (
    Aggregated,
    Concurrency,
    Constant,
    Disaggregated,
    Fixed,
    Lognormal,
    Poisson,
    Spec,
    SpecError,
    Trace,
    config_root,
    dump,
    load,
    parse,
    schema,
    spec_hash,
)

AGG = "name: a\ndeployment: {mode: aggregated}\n"
DIS = "name: a\ndeployment: {mode: disaggregated}\n"

BROKEN = {
    "typo": (
        "name: a\ndeployment: {mode: aggregated, replcas: 2}",
        "x.yaml: deployment.replcas: unknown key; did you mean 'replicas'? "
        "allowed: mode, replicas, tp, dp, router, gpus_per_node, placement",
    ),
    "unknown section": (AGG + "zzz: 1", "x.yaml: zzz: unknown key; allowed: schema, name, model, hardware, profile,"),
    "no such parallelism": (
        AGG + "engine: {data_parallel_size: 8}",
        "x.yaml: engine.data_parallel_size: is `dp` of the pool, beside its tp; allowed: ",
    ),
    "typo causes missing": (AGG + "workload: {kind: gamma, rat: 3}", "x.yaml: workload.rat: unknown key; did you mean"),
    "duplicate": ("name: a\nname: b", "x.yaml: name: given twice (line 2); allowed: each key once"),
    "duplicate inside": (AGG + "slo:\n  ttft_ms: 1\n  ttft_ms: 2\n", "x.yaml: slo.ttft_ms: given twice (line 5); "),
    "negative": (AGG + "slo: {ttft_ms: -5}", "x.yaml: slo.ttft_ms: -5 is too small; allowed: numbers above 0"),
    "zero rate": (AGG + "workload: {rate: 0}", "x.yaml: workload.rate: 0 is too small; allowed: numbers above 0"),
    "NaN": (AGG + "workload: {rate: .nan}", "x.yaml: workload.rate: .nan is not finite; allowed: finite numbers"),
    "infinite": (AGG + "slo: {tpot_ms: .inf}", "x.yaml: slo.tpot_ms: .inf is not finite; allowed: finite numbers"),
    "overflow": (AGG + "slo: {tpot_ms: 1e999}", "x.yaml: slo.tpot_ms: 1e999 is not finite; allowed: finite numbers"),
    "zero workers": (
        "name: a\ndeployment: {mode: disaggregated, prefill: {replicas: 0}}",
        "x.yaml: deployment.prefill.replicas: 0 is too small; allowed: whole numbers from 1",
    ),
    "unknown mode": (
        "name: a\ndeployment: {mode: aggregate}",
        "x.yaml: deployment.mode: 'aggregate' is unknown; did you mean 'aggregated'? allowed: ",
    ),
    "no mode": (
        "name: a\ndeployment: {replicas: 2}",
        "x.yaml: deployment.mode: is missing; allowed: aggregated, disaggregated",
    ),
    "no deployment": (
        "name: a",
        "x.yaml: deployment: is missing; allowed: a section with mode aggregated, disaggregated",
    ),
    "scalar for a section": (AGG + "slo: 3", "x.yaml: slo: 3 is not a section; allowed: a section with keys ttft_ms,"),
    "scalar for kinds": ("name: a\ndeployment: 3", "x.yaml: deployment: 3 is not a section; allowed: a section with"),
    "list for a section": (AGG + "workload: [1]", "x.yaml: workload: a list is not a section; allowed: a section with"),
    "scalar for a list": (AGG + "cluster: {nodes: 3}", "x.yaml: cluster.nodes: 3 is not a list; allowed: a list of"),
    "in a list": (
        AGG + "cluster: {nodes: [{name: n, gpus: 0}]}",
        "x.yaml: cluster.nodes[0].gpus: 0 is too small; allowed: whole numbers from 1",
    ),
    "text for a number": (
        AGG + "workload: {prompt_tokens: abc}",
        "x.yaml: workload.prompt_tokens: 'abc' is not a whole number; allowed: whole numbers from 1, "
        "or a section with kind fixed, uniform, lognormal, empirical",
    ),
    "flag for a number": (AGG + "workload: {rate: true}", "x.yaml: workload.rate: true is not a number; allowed: numb"),
    "half a request": (AGG + "workload: {requests: 1.5}", "x.yaml: workload.requests: 1.5 is not a whole number; allo"),
    "number for text": (
        "name: 3\ndeployment: {mode: aggregated}",
        "x.yaml: name: 3 is not text; allowed: text of lett",
    ),
    "space in the name": (
        "name: a b\ndeployment: {mode: aggregated}",
        "x.yaml: name: 'a b' does not fit; allowed: text",
    ),
    "number for a flag": (
        AGG + "engine: {enforce_eager: 3}",
        "x.yaml: engine.enforce_eager: 3 is not true or false; allowed: true or false",
    ),
    "beyond a fraction": (
        AGG + "engine: {gpu_memory_utilization: 1.2}",
        "x.yaml: engine.gpu_memory_utilization: 1.2 is too large; allowed: numbers above 0 up to 1",
    ),
    "unknown choice": (
        AGG + "engine: {dtype: fp64}",
        "x.yaml: engine.dtype: 'fp64' is unknown; allowed: auto, bfloat16",
    ),
    "unknown schema": (AGG + "schema: 2", "x.yaml: schema: 2 is unknown; allowed: 1"),
    "key named like its kind": (
        AGG + "workload: {kind: concurrency, concurrency: 0}",
        "x.yaml: workload.concurrency: 0 is too small; allowed: whole numbers from 1",
    ),
    "unknown kind": (
        AGG + "workload: {kind: poison}",
        "x.yaml: workload.kind: 'poison' is unknown; did you mean 'poiss",
    ),
    "distribution without kind": (
        AGG + "workload: {prompt_tokens: {mean: 3}}",
        "x.yaml: workload.prompt_tokens.kind: is missing; allowed: fixed, uniform, lognormal, empirical",
    ),
    "bad distribution": (
        AGG + "workload: {prompt_tokens: {kind: lognormal, mean: -1, sigma: 1}}",
        "x.yaml: workload.prompt_tokens.mean: -1 is too small; allowed: numbers above 0",
    ),
    "upside down": (
        AGG + "workload: {prompt_tokens: {kind: uniform, low: 4, high: 2}}",
        "x.yaml: workload.prompt_tokens: high 2 is below low; allowed: numbers from 4",
    ),
    "nothing to draw": (
        AGG + "workload: {prompt_tokens: {kind: empirical, values: []}}",
        "x.yaml: workload.prompt_tokens.values: is empty; allowed: a list of numbers from 0",
    ),
    "unpaired weights": (
        AGG + "workload: {prompt_tokens: {kind: empirical, values: [1, 2], weights: [1]}}",
        "x.yaml: workload.prompt_tokens: 1 weights for 2 values; allowed: one each",
    ),
    "rag without retrieval": (
        AGG + "workload: {kind: rag, rate: 1}",
        "x.yaml: workload.kind: 'rag' has no retrieval stage; allowed: with a section `retrieval: {}`",
    ),
    "empty trace path": (
        AGG + "workload: {kind: trace, path: ''}",
        "x.yaml: workload.path: is empty; allowed: the path of a trace file",
    ),
    "no trace path": (
        AGG + "workload: {kind: trace}",
        "x.yaml: workload.path: is missing; allowed: the path of a trace file",
    ),
    "syntax": (
        "a: [",
        "x.yaml: line 1, column 5: not valid YAML (expected the node content, but found '<stream end>')",
    ),
    "tab": ("name: a\n\tb: 2", "x.yaml: line 2, column 1: not valid YAML (found character '\\t' that cannot start any"),
    "python object": (
        "name: !!python/object:os.system a",
        "x.yaml: line 1, column 7: not valid YAML (could not determ",
    ),
    "two documents": ("a: 1\n---\nb: 2", "x.yaml: line 2, column 1: not valid YAML (but found another document)"),
    "number as key": ("1: 2", "x.yaml: line 1: a key that is no text; allowed: text keys"),
    "list as key": ("? [1]\n: 2", "x.yaml: line 1: a key that is no text; allowed: text keys"),
    "no keys": ("hello", "x.yaml: holds text, not keys; allowed: `key: value` lines"),
    "empty": ("", "x.yaml: the file is empty; allowed: YAML keys and values"),
    "endless alias": (
        "name: &x [*x]",
        "x.yaml: name[0]: an alias contains itself; allowed: aliases of finished values",
    ),
    "too deep": ("name: " + "[" * 5000, "x.yaml: nested too deeply; allowed: sections in sections, a few levels"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_gets_one_line(case: str) -> None:
    text, line = BROKEN[case]
    with pytest.raises(SpecError) as caught:
        parse(text, "x.yaml")
    message = str(caught.value)
    assert message.startswith(line)
    assert "allowed: " in message
    assert "\n" not in message
    assert not any(word in message for word in ("pydantic", "input", "union", "discriminator", "validation"))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"^disag: no such file: 'disag' is unknown; did you mean 'disagg'\? allowed: "):
        load("disag")
    with pytest.raises(SpecError, match=r"no/such\.yaml: no such file: .*, or the path of a YAML file$"):
        load("no/such.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(SpecError, match=r"latin\.yaml: not UTF-8 text; allowed: a YAML file$"):
        load(tmp_path / "latin.yaml")


def test_numbers_are_those_of_yaml_1_2() -> None:
    spec = parse(AGG + "workload: {kind: poisson, rate: 1e-3, requests: 1e4}\nmodel: yes\n")
    assert isinstance(spec.workload, Poisson)
    assert (spec.workload.rate, spec.workload.requests, spec.model) == (0.001, 10_000, "yes")
    assert parse(AGG + "run: {seed: 010}").run.seed == 10  # not octal


def test_whole_numbers_do_for_real_ones() -> None:
    spec = parse(AGG + "workload: {rate: 8}")
    assert isinstance(spec.workload, Poisson)
    assert isinstance(spec.workload.rate, float)


def test_merge_keys_work() -> None:
    text = "name: a\ndeployment: {mode: disaggregated, prefill: &pool {tp: 2, replicas: 3}, decode: {<<: *pool, tp: 4}}"
    deployment = parse(text).deployment
    assert isinstance(deployment, Disaggregated)
    assert (deployment.decode.replicas, deployment.decode.tp) == (3, 4)


@pytest.mark.parametrize("name", [None, "quickstart", "disagg", "configs/disagg.yaml"])
def test_shipped_configs_are_found_anywhere(name: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(name).name == Path(name or "quickstart").stem


def test_every_shipped_config_reads_and_comes_back() -> None:
    files = sorted(config_root().glob("*.yaml"))
    assert files
    for file in files:
        spec = load(file)
        assert parse(dump(spec)) == spec


# --- overrides -----------------------------------------------------------------------------------


def test_overrides_reach_present_and_absent_keys() -> None:
    spec = parse(AGG, "x", ["slo.ttft_ms=200", "retrieval.workers=2", "deployment.replicas=4", "run.seed=7", "model=b"])
    assert spec.slo.ttft_ms == 200
    assert spec.retrieval is not None
    assert spec.retrieval.workers == 2
    assert isinstance(spec.deployment, Aggregated)
    assert (spec.deployment.replicas, spec.run.seed, spec.model) == (4, 7, "b")


def test_an_override_can_hold_a_section() -> None:
    spec = parse(AGG, "x", ["workload.prompt_tokens={kind: lognormal, mean: 1155, sigma: 0.9}", "slo.tpot_ms=null"])
    assert isinstance(spec.workload, Poisson)
    assert spec.workload.prompt_tokens == Lognormal(mean=1155, sigma=0.9)
    assert spec.slo.tpot_ms is None


def test_a_number_becomes_a_distribution_key_by_key() -> None:
    keys = ["workload.prompt_tokens.kind=lognormal", "workload.prompt_tokens.mean=9", "workload.prompt_tokens.sigma=1"]
    spec = parse(AGG + "workload: {prompt_tokens: 5}", "x", keys)
    assert isinstance(spec.workload, Poisson)
    assert spec.workload.prompt_tokens == Lognormal(mean=9, sigma=1)


def test_changing_the_kind_keeps_what_the_new_kind_knows() -> None:
    text = AGG + "workload: {kind: gamma, rate: 5, burstiness: 2, requests: 9, prompt_tokens: 77}"
    spec = parse(text, "x", ["workload.kind=constant"])
    assert spec.workload == Constant(kind="constant", rate=5, requests=9, prompt_tokens=77)
    spec = parse(text, "x", ["workload.kind=concurrency", "workload.concurrency=3"])
    assert spec.workload == Concurrency(kind="concurrency", concurrency=3, requests=9, prompt_tokens=77)


def test_a_trace_brings_its_own_requests() -> None:
    spec = parse(AGG + "workload: {requests: 9}", "x", ["workload.path=t.jsonl", "workload.kind=trace"])
    assert spec.workload == Trace(kind="trace", path="t.jsonl")
    kept = parse(AGG + "workload: {kind: trace, path: a, requests: 9}", "x", ["workload.kind=trace", "workload.path=b"])
    assert kept.workload == Trace(kind="trace", path="b", requests=9)


def test_the_kind_of_a_distribution_can_change() -> None:
    text = AGG + "workload: {prompt_tokens: {kind: lognormal, mean: 5, sigma: 1}}"
    spec = parse(text, "x", ["workload.prompt_tokens.value=3", "workload.prompt_tokens.kind=fixed"])
    assert isinstance(spec.workload, Poisson)
    assert spec.workload.prompt_tokens == Fixed(value=3)


def test_an_override_changes_one_place_only() -> None:
    text = "name: a\ndeployment: {mode: disaggregated, prefill: &pool {tp: 2}, decode: *pool}"
    deployment = parse(text, "x", ["deployment.prefill.tp=4"]).deployment
    assert isinstance(deployment, Disaggregated)
    assert (deployment.prefill.tp, deployment.decode.tp) == (4, 2)


def test_changing_the_mode_drops_the_old_modes_keys() -> None:
    spec = parse("name: a\ndeployment: {mode: aggregated, replicas: 4}", "x", ["deployment.mode=disaggregated"])
    assert spec.deployment == Disaggregated(mode="disaggregated")
    spec = parse(DIS, "x", ["deployment.mode=aggregated", "deployment.replicas=2"])
    assert spec.deployment == Aggregated(mode="aggregated", replicas=2)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("slo", "--set slo: not an assignment; allowed: --set key.inner=value"),
        ("slo..x=1", "--set slo..x=1: not an assignment; allowed: --set key.inner=value"),
        ("slo.ttft_ms=[", "--set slo.ttft_ms: line 1, column 2: not valid YAML"),
        ("slo.ttft=1", "--set slo.ttft: unknown key; did you mean 'ttft_ms'? allowed: ttft_ms,"),
        ("workload.kind=concurrency", "x.yaml: workload.concurrency: is missing; allowed: whole numbers from 1"),
        ("workload.kind=[1]", "--set workload.kind: a list is unknown; allowed: poisson, gamma,"),
        ("model.name=1", "x.yaml: model: a section is not text; allowed: one model: a name in configs/models"),
        # A key of the wrong kind that the user asked for is an error, not dropped.
        ("workload.users=20", "--set workload.users: is not of kind poisson: rate says how often requests come; kind "),
        ("workload.burstiness=2", "--set workload.burstiness: belongs to kind gamma, rag; allowed: "),
        (
            "deployment.prefill.tp=2",
            "--set deployment.prefill: belongs to mode disaggregated; allowed: mode, replicas,",
        ),
        ("mode=aggregated", "--set mode: unknown key; did you mean deployment.mode? allowed: "),
        ("rate=2", "--set rate: unknown key; did you mean workload.rate? allowed: schema, name,"),
    ],
)
def test_a_broken_override_gets_one_line(override: str, line: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(AGG, "x.yaml", [override])
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


DIGITS = "9" * 400
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)


def test_a_number_at_once_is_said_as_sessions_have_it() -> None:
    line = "is not of kind sessions: rate (new sessions a second) x how long one lasts is how many there are at once; "
    with pytest.raises(SpecError, match=re.escape(f"--set workload.concurrency: {line}allowed: kind, rate, sessions,")):
        load("multi-turn", ["workload.concurrency=20"])


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (BOMB, "x.yaml: more than 100000 values, aliases written out; allowed: up to 100000"),
        ("#" * 5_000_000, "x.yaml: 5000000 characters; allowed: up to 4194304"),
        (AGG + "deployment2: 1\n" + f"{'k' * 90_000}: 1", "x.yaml: "),
        (f"name: {'n' * 201}\ndeployment: {{mode: aggregated}}", "x.yaml: name: 'nnnnn"),
        (f"name: a\ndeployment: {{mode: {'m' * 90_000}}}", "x.yaml: deployment.mode: 'mmm"),
        (AGG + f"slo: {{ttft_ms: {DIGITS}}}", "x.yaml: slo.ttft_ms: 999"),
        (AGG + f"slo: {{ttft_ms: {DIGITS}e999}}", "x.yaml: slo.ttft_ms: 999"),
        (AGG + f"workload: {{requests: {DIGITS}}}", "x.yaml: workload.requests: 999"),
        (
            AGG + "workload: {requests: 10000001}",
            "x.yaml: workload.requests: 10000001 is too large; allowed: whole number",
        ),
        (AGG + "run: {seed: 1e300}", "x.yaml: run.seed: 1e+300 is too large; allowed: whole numbers up to 1000"),
        (AGG + "run: {sample_interval_s: 1e-9}", "x.yaml: run.sample_interval_s: 1e-09 is too small; allowed: numbers"),
        (
            "name: a\ndeployment: {mode: aggregated, replicas: 4097}",
            "x.yaml: deployment.replicas: 4097 is too large; allowed: whole numbers from 1 up to 4096",
        ),
        (
            "name: a\ndeployment: {mode: aggregated, router: {state_age_s: 1e-9}}",
            "x.yaml: deployment.router.state_age_s: 1e-09 is too small; allowed: 0, or numbers from 0.001",
        ),
        (
            AGG + "workload: {kind: multi_round_qa, num_users: 1000001}",
            "x.yaml: workload.num_users: 1000001 is too large; allowed: whole numbers from 1 up to 1000000",
        ),
        (AGG + "workload: {kind: multi_round_qa, time: 1e12}", "x.yaml: workload: time 1e+12 is too many of tick_s; "),
    ],
)
def test_what_costs_too_much_is_refused_in_a_short_line(text: str, line: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text, "x.yaml")
    message = str(caught.value)
    assert message.startswith(line)
    assert "\n" not in message
    assert len(message) < 600


# --- writing ---------------------------------------------------------------------------------------

whole = st.integers(1, 10_000)
few = st.integers(1, 4096)
real = st.floats(1e-6, 1e6)
lengths = st.one_of(
    whole,
    st.fixed_dictionaries({"kind": st.just("fixed"), "value": real}),
    st.fixed_dictionaries({"kind": st.just("lognormal"), "mean": real, "sigma": real}),
    st.fixed_dictionaries({"kind": st.just("uniform"), "low": st.integers(0, 9), "high": st.integers(9, 99)}),
    st.fixed_dictionaries({"kind": st.just("empirical"), "values": st.lists(real, min_size=1, max_size=4)}),
)
both = {"prompt_tokens": lengths, "output_tokens": lengths, "requests": whole}
workloads = st.one_of(
    st.fixed_dictionaries({"kind": st.just("poisson")}, optional={**both, "rate": real}),
    st.fixed_dictionaries({"kind": st.just("gamma"), "rate": real}, optional={**both, "burstiness": real}),
    st.fixed_dictionaries({"kind": st.just("concurrency"), "concurrency": whole}, optional=both),
    st.fixed_dictionaries(
        {"kind": st.just("sessions"), "rate": real}, optional={"turns": lengths, "think_time_s": real}
    ),
    st.fixed_dictionaries({"kind": st.just("multi_round_qa")}, optional={"qps": real, "time": real}),
    st.fixed_dictionaries({"kind": st.just("trace"), "path": st.text(min_size=1)}, optional={"speedup": real}),
)
engines = st.fixed_dictionaries(
    {}, optional={"block_size": whole, "enforce_eager": st.booleans(), "dtype": st.sampled_from(["auto", "float32"])}
)
pools = st.fixed_dictionaries({}, optional={"replicas": few, "tp": few, "engine": engines, "hardware": st.text()})
links = st.fixed_dictionaries({}, optional={"preset": st.text(), "bandwidth_gb_s": real, "inter_node": st.just({})})
deployments = st.one_of(
    st.fixed_dictionaries({"mode": st.just("aggregated")}, optional={"replicas": few, "tp": few}),
    st.fixed_dictionaries(
        {"mode": st.just("disaggregated")}, optional={"prefill": pools, "decode": pools, "link": links}
    ),
)
slos = st.fixed_dictionaries({}, optional={"ttft_ms": st.none() | real, "attainment": st.floats(0.01, 1)})
specs = st.fixed_dictionaries(
    {"name": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True), "deployment": deployments},
    optional={"workload": workloads, "slo": slos, "engine": engines, "model": st.text()},
)


@given(specs)
def test_a_written_spec_reads_back_the_same(data: dict[str, object]) -> None:
    spec = Spec.model_validate(data)
    again = parse(dump(spec))
    assert again == spec
    assert spec_hash(again) == spec_hash(spec)


def test_only_what_differs_is_written() -> None:
    assert dump(parse(AGG + "slo: {ttft_ms: 500, tpot_ms: null}")) == (
        "name: a\ndeployment: {mode: aggregated}\nslo: {tpot_ms: null}\n"
    )


def test_the_hash_follows_meaning_not_spelling() -> None:
    one = parse(AGG + "slo: {ttft_ms: 500}\nworkload: {rate: 8, kind: poisson}")
    two = parse(AGG + "workload: {kind: poisson, rate: 8.0}")
    assert spec_hash(one) == spec_hash(two)
    assert spec_hash(one) != spec_hash(parse(AGG + "workload: {rate: 8.5}"))


def test_the_schema_knows_the_keys() -> None:
    found = schema()
    assert set(found["properties"]) == {field.alias or name for name, field in Spec.model_fields.items()}
    assert found["additionalProperties"] is False


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(["", "x", "kind", "poisson"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["kind", "mode", "rate", "x"]), inner),
    max_leaves=4,
)
paths = st.sampled_from(
    "name schema workload workload.kind workload.rate workload.prompt_tokens workload.prompt_tokens.kind deployment "
    "deployment.mode deployment.prefill deployment.prefill.engine deployment.link.inter_node cluster.nodes slo engine "
    "retrieval retrieval.popularity optimizations.prefill run.seed hardware".split()
)


@given(specs, st.lists(st.tuples(paths, anything), min_size=1, max_size=3))
def test_whatever_is_written_there_is_one_line_or_a_spec(
    data: dict[str, object], changes: list[tuple[str, object]]
) -> None:
    overrides = [f"{path}={json.dumps(value)}" for path, value in changes]
    try:
        spec = parse(json.dumps(data, ensure_ascii=False), "x.yaml", overrides)
    except SpecError as error:
        message = str(error)
        assert "\n" not in message
        assert message.startswith(("x.yaml: ", "--set "))
        assert "allowed: " in message
        assert "cannot be used" not in message  # every fault of pydantic's has its own words
    else:
        assert parse(dump(spec)) == spec


AT_DEFAULTS = {
    "a pool's engine": [
        "engine.max_num_seqs=64", "engine.enforce_eager=true", "engine.block_size=32",
        "deployment.decode.engine={enforce_eager: false, max_num_seqs: null, dtype: auto}",
    ],
    "a router's preset": ["deployment.router={preset: report, policy: least_loaded, prefill_dispatch: push}"],
    "a pool's router": ["deployment.decode.router={preset: dynamo_v0.3, overlap_weight: 1.0}"],
    "local prefill": ["deployment.router.preset=report", "deployment.local_prefill={max_tokens: 0}"],
}  # fmt: skip


@pytest.mark.parametrize("what", AT_DEFAULTS)
def test_a_default_that_is_said_survives_its_own_yaml(what: str) -> None:
    """Set to its default it says something else than what the top level, or a preset, would fill in."""
    from planner.system.resolve import resolve

    spec = load("disagg", AT_DEFAULTS[what])
    plain = load("disagg", [text for text in AT_DEFAULTS[what] if text.startswith("engine")])
    again = parse(dump(spec))
    mine, theirs, others = resolve(spec), resolve(again), resolve(plain)
    assert again == spec
    assert [pool.engine for pool in mine.pools] == [pool.engine for pool in theirs.pools]
    assert [pool.router for pool in mine.pools] == [pool.router for pool in theirs.pools]
    assert mine.spec.deployment == theirs.spec.deployment
    assert (mine.pools, mine.spec.deployment) != (others.pools, others.spec.deployment)  # and does say something
    assert parse(dump(mine.spec)) == mine.spec


@pytest.mark.parametrize("text", ["vllm serve a/b -tp 2\n", "#!/bin/sh\n", "apiVersion: apps/v1\nkind: Deployment\n"])
def test_another_stacks_file_is_sent_to_the_importer(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(SpecError, match="is another stack's file; allowed: the YAML that `planner import` makes"):
        load(tmp_path / "x")


@pytest.mark.parametrize(
    "text", ['{"a": 1}\n{"a": 2}\n', "time,prompt,output\n1,2,3\n", "\ufeffa;b c;d\r\n2026-01-01;2;3\r\n"]
)
def test_a_trace_is_sent_to_replay(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(SpecError, match="is a table of requests, not a deployment; allowed: .* `planner replay`"):
        load(tmp_path / "x")


@pytest.mark.parametrize("name", ["08", "1e3", "1_0", "0o7", "yes", "2026-01-01", "true"])
def test_a_name_that_looks_like_something_else_is_text_again(name: str) -> None:
    spec = parse(f"name: '{name}'\ndeployment: {{mode: aggregated}}\n", "x")
    assert parse(dump(spec), "x") == spec
