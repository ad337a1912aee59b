"""Deploy: the files of the answer's deployments for other stacks, with the flags that the answer depends on."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import streamlit as st

from planner.interop.export import TARGETS, export
from planner.spec import Spec, SpecError, parse
from planner.spec.strict_yaml import written
from planner.suggestion.words import pick, sentence
from planner.ui import compute
from planner.ui.answer import answered
from planner.ui.frame import badge, failed, guarded, link, scenario, title
from planner.ui.lead import serves, too_much
from planner.ui.texts import say, t

WHOLE = "planner"
TITLES = {
    "vllm": "vLLM", "compose": "Docker Compose", "dynamo": "Dynamo", "llm-d": "llm-d", "kserve": "KServe",
    "lws": "LeaderWorkerSet",
}  # fmt: skip
LANGUAGES = {".sh": "bash", ".yaml": "yaml", ".py": "python", ".jsonl": "json"}


@guarded
def page() -> None:
    title(t("Deploy"), t("The answer as files. Nothing is started from here."))
    try:
        now, found = answered(scenario())
        texts = {
            t("All {gpus} GPUs: {name}", gpus=found.gpus, name=say(pick(found.rows, found.verdict).name)): found.yaml
        }
        fewest = found.smallest
        if fewest is not None and fewest.gpus is not None and fewest.gpus < found.gpus:
            label = t("Enough for your load: {name}", name=say(str(fewest.name)))
            texts = {label: compute.fewest_yaml(now, fewest), **texts}
        chosen = st.radio(t("Deployment"), list(texts), horizontal=True, key="deploy_which")
        badge(found.provenance, found.notes)
        sure, rate = compute.known(now), compute.rate_of(now.spec())  # a first look may do better than it says
        if not pick(found.rows, found.verdict).rate > 0:
            st.warning(say(sentence(found.rows, found.verdict, found.gpus, found.slo)), icon=":material/block:")
        elif sure is not None and rate is not None and not serves(sure, rate):
            st.warning(too_much(sure, rate), icon=":material/block:")
        _files(parse(texts[chosen or next(iter(texts))]))
    except (SpecError, ChildProcessError) as error:
        failed(error)
        link("ask", t("Change the question"), ":material/help:")


def _files(spec: Spec) -> None:
    flags = spec.deployment.mode, *(tuned(spec) or [t("vLLM's own defaults")])
    st.markdown(t("The answer depends on: {flags}", flags=", ".join(f"`{flag}`" for flag in flags)))
    names = [*TARGETS, WHOLE]
    target = st.segmented_control(
        t("For"), names, default=names[0], key="deploy_target", required=True,
        format_func=lambda name: t("One YAML, whole") if name == WHOLE else TITLES.get(name, name),
    )  # fmt: skip
    files = {f"{spec.name}.yaml": whole(spec)} if target == WHOLE else exported(spec, target or names[0])
    st.download_button(
        t("Download all"), zipped(files), f"{spec.name}-{target}.zip", "application/zip", icon=":material/download:",
        on_click="ignore", type="primary",
    )  # fmt: skip
    for place, (name, text) in enumerate(files.items()):
        with st.expander(name, expanded=place == 0):
            st.code(text[:MOST_SHOWN], language=LANGUAGES.get(Path(name).suffix), wrap_lines=True)
            if len(text) > MOST_SHOWN:
                st.caption(t("The rest is in the download."))


MOST_SHOWN = 20_000  # characters of a file


def tuned(spec: Spec) -> list[str]:
    """Engine and link keys that the deployment sets over vLLM's defaults."""
    engines = [("engine", spec.engine)]
    links = []
    if spec.deployment.mode == "disaggregated":
        pools = (("prefill", spec.deployment.prefill), ("decode", spec.deployment.decode))
        engines += [(f"{role}.engine", pool.engine) for role, pool in pools if pool.engine is not None]
        links = [("link", spec.deployment.link)]
    return [
        f"{where}.{key}={getattr(node, key)}"
        for where, node in (*engines, *links)
        for key in sorted(node.model_fields_set)
    ]


def whole(spec: Spec) -> str:
    """The spec with every key, defaults too, so that later defaults do not change it."""
    data = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return written(data, width=110)


def exported(spec: Spec, target: str) -> dict[str, str]:
    """The files that `planner export` writes for a stack. Raises SpecError."""
    with tempfile.TemporaryDirectory() as folder:
        return {path.name: path.read_text() for path in export(spec, target, Path(folder)) if path.is_file()}


def zipped(files: dict[str, str]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return held.getvalue()
