"""Is it really P/D? One file for each classic mistake, found by `import --check` and by `doctor`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from planner.cli import run
from planner.interop.import_checks import CHECKS, proxy_mistakes
from planner.interop.import_file import import_file
from planner.spec import SpecError

FILES = Path(__file__).parent / "data" / "pd_mistakes"
MISTAKES = {
    "no_connector.yaml": "without a KV connector",
    "one_side_channel.sh": "VLLM_NIXL_SIDE_CHANNEL_PORT 5600 is command 1's too",
    "no_pod_address.yaml": "VLLM_NIXL_SIDE_CHANNEL_HOST is not set",
    "tp_ratio.sh": "prefill tp 4 and decode tp 3",
    "block_sizes.yaml": "prefill 64 and decode 16",
    "kv_types.sh": "auto and fp8",
    "no_cache_on_decode.sh": "off on decode",
    "proxy_without_params.sh": "never passes kv_transfer_params on",
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_mistake_is_found_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = import_file(FILES / name)
    mistakes = {note.text for note in found.notes if note.kind == "mistake"}
    assert all(MISTAKES[name] in text for text in mistakes), mistakes
    assert mistakes
    for command in (["import", "--check"], ["doctor"]):
        assert run([*command, str(FILES / name)]) == 2
        assert MISTAKES[name] in capsys.readouterr().out


def test_two_consumers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SpecError, match="every server is kv_consumer; none is kv_producer"):
        import_file(FILES / "both_consume.sh")
    for command in (["import", "--check"], ["doctor"]):
        assert run([*command, str(FILES / "both_consume.sh")]) == 2
        assert "every server is kv_consumer" in capsys.readouterr().err


def test_a_right_pair_has_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", str(FILES / "right.sh"), "--json"]) == 0
    (only,) = json.loads(capsys.readouterr().out)["files"]
    assert (only["mistakes"], only["losses"]) == ([], [])
    assert run(["import", "--check", str(FILES / "right.sh")]) == 0
    assert "nothing is lost" in capsys.readouterr().out


def test_proxies_by_themselves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proxy = tmp_path / "proxy.py"
    program = (
        "import httpx\nasync def go(prefill, decode, body):\n    await prefill.post('/v1/completions', json=body)\n"
    )
    proxy.write_text(program)
    assert run(["doctor", str(proxy)]) == 2
    assert "kv_transfer_params" in capsys.readouterr().out
    proxy.write_text(program + "    body['kv_transfer_params'] = {}\n")
    assert run(["doctor", str(proxy)]) == 0
    ours = (Path(__file__).parents[1] / "planner" / "interop" / "proxy.txt").read_text()
    assert proxy_mistakes(ours, "proxy.py") == []
    other = tmp_path / "other.py"
    other.write_text("print(1)\n")
    assert run(["doctor", str(other)]) == 2
    assert "forwards no completions" in capsys.readouterr().err


def test_every_check_has_its_file() -> None:
    assert len(MISTAKES) + 1 >= len(CHECKS)
    assert {path.name for path in FILES.iterdir()} == {*MISTAKES, "both_consume.sh", "right.sh"}
