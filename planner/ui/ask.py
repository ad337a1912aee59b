"""Ask: GPUs, model, traffic and targets, all filled in. The first click works."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from planner.commands.doctor import nvidia_gpus
from planner.engine.catalogue import hardware, names
from planner.report.words import number
from planner.spec import SpecError
from planner.ui.frame import failed, go, guarded, remember, scenario, title
from planner.ui.scenario import CARDS, LIMITS, TRACE, Scenario, keep_upload, profile_for, traces
from planner.ui.texts import fault, say, t


@st.cache_data(ttl=60, show_spinner=False)
def detected() -> tuple[str, ...]:
    """The GPUs of this machine."""
    return nvidia_gpus()


@guarded
def page() -> None:
    title(
        t("How should your GPUs serve this model?"),
        t("All together, or split into prefill and decode? Everything is filled in: press Answer, or change it first."),
    )
    for one in st.session_state.pop("faults", []):
        st.warning(t("The address held a value that cannot be used: {fault}", fault=fault(one)))
    _fill(scenario())
    _machines()
    _traffic()
    _targets()
    _experts()
    now = _read()
    remember(now)
    _button(now)


# --- widgets hold what the user types; the scenario is what they say together ---------------------

FIELDS = (
    "model", "hardware", "gpus", "rate", "prompt", "output", "ttft_ms", "tpot_ms", "attainment", "link", "requests",
    "seeds", "extra", "trace",
)  # fmt: skip


def _fill(now: Scenario) -> None:
    """Streamlit forgets widgets of pages that are not shown: give each its value again."""
    for name in FIELDS:
        st.session_state.setdefault(f"ask_{name}", getattr(now, name))


def _read() -> Scenario:
    values = {name: st.session_state.get(f"ask_{name}") for name in FIELDS}
    return replace(scenario(), **{name: value for name, value in values.items() if value is not None})


def _choose(card: str) -> None:
    """A traffic card brings its typical numbers."""
    chosen = _read().with_card(card)
    if card == TRACE and not chosen.trace:
        chosen = replace(chosen, trace=next(iter(traces()), ""))
    remember(chosen)
    for name in FIELDS:
        st.session_state[f"ask_{name}"] = getattr(chosen, name)


def _number(label: str, name: str, step: float, help: str | None = None) -> None:
    low, high = LIMITS[name]
    whole = not isinstance(getattr(scenario(), name), float)
    kind = int if whole else float
    form = None if whole else "%g"
    st.number_input(label, kind(low), kind(high), step=kind(step), key=f"ask_{name}", help=help, format=form)


def _machines() -> None:
    left, middle, right = st.columns([1, 2, 2])
    with left:
        _number(t("GPUs"), "gpus", 1, t("How many GPUs there are to use, all alike."))
    with middle:
        st.selectbox(t("GPU"), names("hardware"), format_func=lambda name: hardware(name).title, key="ask_hardware")
    with right:
        st.selectbox(t("Model"), names("models"), key="ask_model")
    here = detected()
    if here:
        st.caption(t("Found here: {gpus}", gpus=", ".join(here)))
    else:
        st.caption(t("No GPU was found on this machine. None is needed: the answer is simulated."))


def _traffic() -> None:
    st.subheader(t("Traffic"), anchor=False)
    chosen = scenario().traffic
    with st.container(horizontal=True, gap="small"):
        for name, card in CARDS.items():
            with st.container(border=True, width=200, height="stretch"):
                kind = "primary" if chosen == name else "secondary"
                st.button(
                    say(card.title), key=f"card_{name}", icon=card.icon, type=kind, width="stretch",  # type: ignore[arg-type]
                    on_click=_choose, args=(name,),
                )  # fmt: skip
                st.caption(say(card.about))
        with st.container(border=True, width=200, height="stretch"):
            kind = "primary" if chosen == TRACE else "secondary"
            st.button(
                t("My own trace"), key="card_trace", icon=":material/upload_file:", type=kind, width="stretch",  # type: ignore[arg-type]
                on_click=_choose, args=(TRACE,),
            )  # fmt: skip
            st.caption(t("Recorded traffic from a file"))
    if chosen == TRACE:
        _trace()
        return
    columns = st.columns(3)
    with columns[0]:
        _number(t("Requests per second"), "rate", 1.0, t("All users together, on average."))
    with columns[1]:
        label = t("New tokens a turn, on average") if chosen == "agents" else t("Prompt tokens, on average")
        _number(label, "prompt", 50, t("About 0.75 English words, or 1.5 Chinese characters, are one token."))
    with columns[2]:
        _number(t("Answer tokens, on average"), "output", 10, t("Lengths scatter around the mean as real ones do."))


def _trace() -> None:
    left, right = st.columns(2)
    with right:
        uploaded = st.file_uploader(t("Upload a trace"), type=["jsonl", "json", "csv", "gz"], key="ask_upload")
        if uploaded is not None:
            st.session_state["ask_trace"] = keep_upload(uploaded.name, uploaded.getvalue())
    with left:
        st.selectbox(t("Trace"), list(traces()), key="ask_trace")
        st.caption(t("Mooncake, Bailian, Azure, BurstGPT or vLLM bench files, plain or gzip."))


def _targets() -> None:
    st.subheader(t("Targets"), anchor=False)
    columns = st.columns(3)
    with columns[0]:
        _number(t("First token within, ms (TTFT)"), "ttft_ms", 50, t("From sending a request to its first token."))
    with columns[1]:
        _number(
            t("Then a token every, ms (TPOT)"), "tpot_ms", 5, t("The pace after the first token, a request's mean.")
        )
        pace = number(1000 / max(1, st.session_state["ask_tpot_ms"]))
        st.caption(t("{pace} tokens a second for each user", pace=pace))
    with columns[2]:
        _number(t("For this share of requests, %"), "attainment", 0.5, t("The others may be slower."))


def _experts() -> None:
    with st.expander(t("More for experts"), icon=":material/tune:"):
        columns = st.columns(3)
        with columns[0]:
            st.selectbox(t("Link between GPUs"), names("links"), key="ask_link", help=t("It carries the KV cache."))
        with columns[1]:
            _number(
                t("Requests of each simulated list"),
                "requests",
                50,
                t("More take longer and see rarer cases. 0: 400 a GPU, 2000 to 4000 in all."),
            )
        with columns[2]:
            _number(t("Lists to search with (seeds)"), "seeds", 1, t("Several give the answer a range."))
        st.text_area(
            t("More keys of the YAML, one key=value a line"), key="ask_extra", height=90,
            placeholder="engine.max_num_seqs=512\ndeployment.router.policy=prefix_aware",
        )  # fmt: skip


def _button(now: Scenario) -> None:
    st.divider()
    try:
        now.spec()
    except SpecError as error:
        failed(error)
        return
    if profile_for(now.model, now.hardware) is None:
        st.caption(t("This model was not measured on this GPU: step times come from the datasheet, uncalibrated."))
    if st.button(t("Answer"), type="primary", icon=":material/lightbulb:", key="ask_button"):
        go("answer")
