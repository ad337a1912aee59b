"""Ask: GPUs, model, traffic and targets, all filled in. The first click works."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import streamlit as st

from planner.commands.doctor import nvidia_gpus
from planner.engine.catalogue import hardware, names
from planner.engine.model_config import model_config
from planner.report.words import number
from planner.spec import SpecError
from planner.traffic.traces import summarise
from planner.ui.answer import in_words
from planner.ui.bar import go_on
from planner.ui.compute import trace_of
from planner.ui.frame import about_traces, failed, go, guarded, remember, scenario, title
from planner.ui.models import offered, pasted, standing
from planner.ui.prices import list_price, prices
from planner.ui.scenario import CARDS, LIMITS, TRACE, Scenario, traces
from planner.ui.texts import say, t
from planner.ui.uploads import keep, mine, shown


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
    _fill(scenario())
    _machines()
    _traffic()
    _targets()
    _experts()
    now = _read()
    remember(now)
    _button(now)


# --- widgets hold what the user types; the scenario is what they say together ---------------------

FIELDS = tuple(field.name for field in fields(Scenario) if field.name != "traffic")


def _fill(now: Scenario) -> None:
    """Streamlit forgets widgets of pages that are not shown: give each its value again."""
    for name in FIELDS:
        value = getattr(now, name)
        st.session_state.setdefault(f"ask_{name}", None if value != value else value)


def _read() -> Scenario:
    """A number that was cleared is none: not a number, which is out of every range."""
    values: dict[str, Any] = {name: st.session_state[f"ask_{name}"] for name in FIELDS}
    cleared = {name: math.nan for name in LIMITS if name != "price" and values[name] is None}
    given = {name: value for name, value in values.items() if value is not None or name == "price"}
    return replace(scenario(), **(given | cleared))


def _choose(card: str) -> None:
    """A traffic card brings its typical numbers."""
    chosen = _read().with_card(card)
    if card == TRACE and not chosen.trace:
        chosen = replace(chosen, trace=next(iter(traces()), ""))
    remember(chosen)
    for name in FIELDS:
        st.session_state[f"ask_{name}"] = getattr(chosen, name)


def _number(label: str, name: str, step: float, help: str | None = None, placeholder: str | None = None) -> None:
    """A number that may be anything: one out of range is said here, and asked by nobody."""
    whole = isinstance(getattr(Scenario(), name), int)
    options: dict[str, Any] = {"step": int(step), "format": None} if whole else {"step": float(step), "format": "%g"}
    st.number_input(label, key=f"ask_{name}", help=help, value=None, placeholder=placeholder, **options)
    wrong = _read().faults().get(name)
    if wrong is not None:
        st.markdown(f":red[:material/error: {say(wrong)}]")


def _machines() -> None:
    one, two, three = st.columns([2, 2, 2])
    with one:
        wants = {"gpus": t("I have GPUs: use them best"), "fewest": t("How few GPUs for this load?")}
        st.radio(t("What to find"), list(wants), format_func=wants.__getitem__, key="ask_want")
    with two:
        if st.session_state["ask_want"] == "gpus":
            _number(t("GPUs"), "gpus", 1, t("How many GPUs there are to use, all alike."))
        st.selectbox(t("GPU"), names("hardware"), format_func=lambda name: hardware(name).title, key="ask_hardware")
    with three:
        _price(st.session_state["ask_hardware"])
    _model(_read())
    here = detected()
    if here:
        st.caption(t("Found here: {gpus}", gpus=", ".join(here)))
    else:
        st.caption(t("No GPU was found on this machine. None is needed: the answer is simulated."))


def _price(name: str) -> None:
    listed = list_price(name)
    shown = t("not listed: type what you pay") if listed is None else t("{price:g} (list price)", price=listed)
    _number(t("US dollars per GPU-hour"), "price", 0.1, placeholder=shown)
    if listed is not None and st.session_state["ask_price"] is None:
        found = prices()
        st.caption(t("List price of {date}: {source}", date=found.date, source=found.source))


def _model(now: Scenario) -> None:
    kinds = {"measured": t("measured"), "roofline": t("from the datasheet"), "not supported": t("not supported")}

    def named(model: str) -> str:
        return f"{model} · {kinds[standing(model, now.hardware, now.most_gpus).kind]}"

    left, right = st.columns([3, 1], vertical_alignment="bottom")
    with right, st.popover(t("My own model"), icon=":material/upload_file:", width="stretch"):
        text = st.text_area(t("Its config.json, pasted"), key="ask_config", height=160)
        if st.button(t("Use this model"), key="ask_config_use"):
            _use_pasted(text)
    chosen = st.session_state["ask_model"]
    with left:
        options = [*offered(), *([] if chosen in offered() else [chosen])]
        st.selectbox(
            t("Model"), options, format_func=named, key="ask_model", accept_new_options=True,
            help=t("A name of the list, a Hugging Face id such as Qwen/Qwen3-8B, or a folder with a config.json."),
        )  # fmt: skip
    found = standing(str(st.session_state["ask_model"]), now.hardware, now.most_gpus)
    if found.fault is not None:
        failed(found.fault)
    elif found.kind == "roofline":
        st.caption(t("This model was not measured on this GPU: step times are those of the roofline."))


def _use_pasted(text: str) -> None:
    try:
        folder = pasted(text)
        model_config(folder)
    except SpecError as error:
        failed(error)
        return
    remember(replace(_read(), model=folder))
    del st.session_state["ask_model"]
    st.rerun()


def _traffic() -> None:
    st.subheader(t("Traffic"), anchor=False)
    chosen = scenario().traffic
    with st.container(horizontal=True, gap="small", key="traffic_cards"):
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
        _how_much()
    with columns[1]:
        label = t("New tokens a turn, on average") if chosen == "agents" else t("Prompt tokens, on average")
        _number(label, "prompt", 50, t("About 0.75 English words, or 1.5 Chinese characters, are one token."))
    with columns[2]:
        _number(t("Answer tokens, on average"), "output", 10, t("Lengths scatter around the mean as real ones do."))


def _how_much() -> None:
    loads = {"rate": t("Requests per second"), "users": t("Users")}
    st.radio(t("How much is sent"), list(loads), format_func=loads.__getitem__, key="ask_load", horizontal=True)
    if st.session_state["ask_load"] == "rate":
        _number(t("Requests per second"), "rate", 1.0, t("All users together, on average."))
        return
    _number(t("Users at the same time"), "users", 10, t("Those who have a conversation open."))
    _number(t("Seconds between an answer and the next message"), "think_s", 5.0, t("Reading, thinking and typing."))
    now = _read()
    if not now.faults():
        st.caption(t("= {rate} requests/s, when answers take what the targets allow", rate=number(now.sent_rate)))


def _trace() -> None:
    left, right = st.columns(2)
    with right:
        uploaded = st.file_uploader(t("Upload a trace"), type=["jsonl", "json", "csv", "gz"], key="ask_upload")
        if uploaded is not None:
            kept = keep(uploaded.name, uploaded.getvalue())
            if st.session_state.get("ask_uploaded") != kept:  # chosen once; the list stays free to choose from
                st.session_state["ask_uploaded"] = st.session_state["ask_trace"] = kept
    with left:
        chosen = st.session_state["ask_trace"]
        known = [*traces(), *mine()]
        st.selectbox(
            t("Trace"), known if chosen in known or not chosen else [*known, chosen], format_func=shown,
            key="ask_trace",
        )  # fmt: skip
        _shape(st.session_state["ask_trace"])
        about_traces()


def _shape(name: str) -> None:
    """What a trace holds in a line, or why it cannot be used."""
    try:
        found = summarise(trace_of(name).requests)
    except SpecError as error:
        failed(error)
        return
    assert found is not None  # a trace that was read has requests
    told = {"rate": number(found.rate), "prompt": number(found.prompt_tokens["mean"])}
    st.caption(
        t(
            "{n} requests at {rate} requests/s; on average {prompt} prompt and {output} answer tokens",
            n=f"{found.requests:,}", output=number(found.output_tokens["mean"]), **told,
        )
    )  # fmt: skip


def _readable(name: str) -> bool:
    try:
        trace_of(name)
    except SpecError:
        return False
    return True


def _targets() -> None:
    st.subheader(t("Targets"), anchor=False)
    columns = st.columns(3)
    with columns[0]:
        _number(t("First token within, ms (TTFT)"), "ttft_ms", 50, t("From sending a request to its first token."))
    with columns[1]:
        _number(
            t("Then a token every, ms (TPOT)"), "tpot_ms", 5, t("The pace after the first token, a request's mean.")
        )
        pace = number(1000 / max(1, st.session_state["ask_tpot_ms"] or 1))
        st.caption(t("{pace} tokens a second for each user", pace=pace))
    with columns[2]:
        _number(t("For this share of requests, %"), "attainment", 0.5, t("The others may be slower."))


def _experts() -> None:
    with st.expander(t("More for experts"), icon=":material/tune:"):
        columns = st.columns(3)
        with columns[0]:
            own = t("The GPU's own")
            st.selectbox(
                t("Link between GPUs"), ["", *names("links")], key="ask_link", help=t("It carries the KV cache."),
                format_func=lambda name: name or own,
            )  # fmt: skip
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
    """The button, in sight wherever the page is scrolled to, and what stands in its way."""
    with st.container(key="answer_bar", horizontal=True, vertical_alignment="center"):
        try:
            now.spec()
        except SpecError as error:
            failed(error)
            return
        if standing(now.model, now.hardware, now.most_gpus).fault is not None:
            st.error(t("This model cannot run here: see its line above."), icon=":material/error:")
            return
        if now.traffic == TRACE and not _readable(now.trace):
            st.error(t("This trace cannot be used: see its line above."), icon=":material/error:")
            return
        if st.button(t("Answer"), type="primary", icon=":material/lightbulb:", key="ask_button"):
            go_on()
            go("answer")
        st.caption(in_words(now))
