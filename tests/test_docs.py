"""The documents say what is so: their commands parse, their links lead somewhere, their words are ours."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from planner.commands import UsageError, build

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
FENCED = re.compile(r"^```(?:bash|console|sh)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")
PLACEHOLDERS = re.compile(r"\b[A-Z]{3,}\b")  # RUN, CONFIG, TRACE, URL: the reader's own


def commands(document: Path) -> list[str]:
    """Every shell command of the document's fenced blocks, one a string, chains taken apart."""
    lines = "\n".join(FENCED.findall(document.read_text())).replace("\\\n", " ").splitlines()
    parts = [part for line in lines for part in re.split(r"&&|\|", line.split("  #")[0].removeprefix("$ "))]
    return [part.strip() for part in parts if part.strip()]


def planner_commands() -> list[str]:
    found = [command for document in DOCUMENTS for command in commands(document)]
    return sorted({command for command in found if shlex.split(command)[0].rsplit("/")[-1] == "planner"})


def test_the_readme_has_commands() -> None:
    assert len(commands(ROOT / "README.md")) > 5
    assert planner_commands()


@pytest.mark.parametrize("line", planner_commands())
def test_every_planner_command_parses(line: str) -> None:
    """Names and options exist; nothing runs."""
    words = shlex.split(line)[1:]
    group = get_command(build())
    assert isinstance(group, TyperGroup)
    context = group.make_context("planner", [*words], resilient_parsing=True)
    try:
        name, command, rest = group.resolve_command(context, [*words])
        assert command is not None
        command.make_context(name, [*rest], parent=context)
    except UsageError as error:
        pytest.fail(f"{line}: {error}")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_named_in_commands_exist(document: Path) -> None:
    for command in commands(document):
        for word in shlex.split(command)[1:]:
            if re.match(r"(configs|traces|tests|docs|benchmarks)/", word) and not PLACEHOLDERS.search(word):
                assert (ROOT / word).exists(), f"{document.name}: {command}"
            if word.endswith(".py") and "/" not in word:
                assert (ROOT / word).exists(), f"{document.name}: {command}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_to_files(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if "://" not in target and not target.startswith("mailto:"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_no_file_depends_on_where_it_was_written() -> None:
    """No address of a package index (that is the user's configuration) and no folder of a developer's machine."""
    hosts = [
        "py" + "pi.org",
        "pythonhosted" + ".org",
        "download." + "pytorch.org",
        "file" + ":///",
        "/wo" + "rk/",
        "/op" + "t/",
    ]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git clone")
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.suffix in {".gz", ".parquet", ".png", ".safetensors"}:
            continue
        text = path.read_text(errors="replace")
        for host in hosts:
            assert host not in text, f"{name} names {host}"


def test_documents_repeat_what_the_program_says() -> None:
    """docs/metrics.md and the outputs in README.md are written by a script; a change of either side shows here."""
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
