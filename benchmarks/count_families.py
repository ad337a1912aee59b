"""Counts the parameters of tests/data/families.jsonl anew: `python benchmarks/count_families.py [NAME...]`.

Needs transformers and torch. Models are built on the meta device, where weights take no room. Prints one line a
model: its name, what the file says, what is counted.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parent.parent / "tests" / "data" / "families.jsonl"
TOWER = re.compile(r"vis(ion|ual)|audio|patch|projector|multi_modal")


def counted(config: dict[str, Any]) -> tuple[int, int]:
    """(parameters of the language model, of the vision tower). Tied weights count once."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    keys = dict(config)
    made = AutoConfig.for_model(keys.pop("model_type"), **keys)
    with torch.device("meta"):
        kind = AutoModelForImageTextToText if "vision_config" in config else AutoModelForCausalLM
        try:
            model = kind.from_config(made)
        except ValueError:  # registered under the other name
            model = AutoModelForImageTextToText.from_config(made)
    text = tower = 0
    for name, parameter in model.named_parameters():
        if TOWER.search(name):
            tower += parameter.numel()
        else:
            text += parameter.numel()
    return text, tower if "vision_config" in config else 0


def main(names: list[str]) -> int:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    wrong = 0
    for line in DATA.read_text(encoding="utf-8").splitlines()[1:]:
        row = json.loads(line)
        if names and row["name"] not in names:
            continue
        found, said = counted(row["config"]), (row["parameters"], row["vision"])
        wrong += found != said
        print(row["name"], *said, *found, "" if found == said else "DIFFERS")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
