"""What the column `chunks` of a steps table says of prompts."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def single_tokens(chunks: pd.Series) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(how many, tokens there before) of each step's prompt chunks of one token: they run as decodes do."""
    found = [
        [(new, done) for new, done in json.loads(text) if new == 1] if isinstance(text, str) else [] for text in chunks
    ]
    ones = np.array([float(len(step)) for step in found])
    return ones, np.array([float(sum(done for _, done in step)) for step in found])
