"""What programs rely on: the schema of `planner suggest --json`, and the recipes of docs/api.md."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from planner.cli import run
from planner.suggestion.schema import schema

PAGE = Path(__file__).parents[1] / "docs" / "api.md"


def test_real_answers_fit_the_published_schema(capsys: pytest.CaptureFixture[str]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="it is in the dev extra")
    assert run(["schema", "suggest"]) == 0
    published = json.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(published)
    assert published == json.loads((PAGE.parent / "suggest.schema.json").read_text())
    quick = ["--requests", "40", "--seeds", "2", "--json"]
    for options in (["disagg", "--gpus", "2", "--rate", "2"], ["agg", "--gpus", "1"]):
        assert run(["suggest", *options, *quick]) == 0
        answer = json.loads(capsys.readouterr().out)
        jsonschema.validate(answer, published)
        for wrong in (answer | {"new": 1}, {key: value for key, value in answer.items() if key != "yaml"}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(wrong, published)


def test_the_schema_describes_every_key() -> None:
    found = schema()
    assert all(one.get("description") for one in found["properties"].values())
    assert run(["schema", "xml"]) == 2


def test_the_recipes_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 5
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    rates = names["rates"]
    assert isinstance(rates, dict)
    assert list(rates) == [2, 4, 8]
    error = names["error"]
    assert isinstance(error, float)
    assert abs(error) < 1e-9  # the same requests, through another tool's columns
