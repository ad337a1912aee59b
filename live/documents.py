"""Document folders and synthetic corpora, cut into chunks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from live.prompts import WORDS
from planner.spec import Retrieval, SpecError

SHIPPED = Path(__file__).parent / "corpus"
MOST_CORPUS_BYTES = 2**28  # its index takes several times that in memory
SYNTHETIC_SEED = 20_250_701  # one corpus for all runs: it is part of the system, not of the traffic


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document. `name` is its path in the folder, with the piece's number when there are several."""

    name: str
    text: str


def load_chunks(spec: Retrieval, chars_per_token: float) -> list[Chunk]:
    """The corpus that a spec names: a folder of .txt and .md files, `synthetic`, or the one that ships."""
    limit = max(32, round(spec.chunk_tokens * chars_per_token))
    if spec.corpus == "synthetic":
        return synthetic(spec.popularity.documents, limit)
    folder = SHIPPED if spec.corpus is None else Path(spec.corpus).expanduser()
    if not folder.is_dir():
        raise SpecError(
            "retrieval.corpus: {folder} is not a folder; allowed: a folder of .txt/.md files, 'synthetic'", folder
        )
    chunks: list[Chunk] = []
    left = MOST_CORPUS_BYTES
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".txt", ".md") and path.is_file():
            left -= path.stat().st_size
            if left < 0:
                raise SpecError(
                    "retrieval.corpus: {folder} holds more than {most} bytes of text", folder, MOST_CORPUS_BYTES
                )
            name = path.relative_to(folder).as_posix()
            pieces = split(path.read_text(encoding="utf-8", errors="replace"), limit)
            chunks += [Chunk(f"{name}#{n}" if len(pieces) > 1 else name, piece) for n, piece in enumerate(pieces, 1)]
    if not chunks:
        raise SpecError("retrieval.corpus: {folder} holds no .txt or .md file with text", folder)
    return chunks


def split(text: str, limit: int) -> list[str]:
    """Pieces of at most `limit` characters, cut between paragraphs where possible, else sentences, else words."""
    pieces: list[str] = []
    current = ""
    for part in _parts(text.strip(), limit):
        joined = current + part
        if len(joined.strip()) <= limit:
            current = joined
            continue
        if current.strip():
            pieces.append(current.strip())
        current = part
    if current.strip():
        pieces.append(current.strip())
    return pieces


def _parts(text: str, limit: int) -> list[str]:
    """The text in order, in parts that each fit, split at the coarsest boundary that makes them fit."""
    parts = [text]
    for boundary in (r"(?<=\n)(?=\n)", r"(?<=[.!?])(?=\s)", r"(?<=\S)(?=\s)"):
        finer: list[str] = []
        for part in parts:
            finer += re.split(boundary, part) if len(part.strip()) > limit else [part]
        parts = finer
    return [part[at : at + limit] for part in parts for at in range(0, max(len(part), 1), limit)]


def synthetic(documents: int, chars: int) -> list[Chunk]:
    """Documents of random words; each has words of its own that come up often, so that a search can tell them apart."""
    rng = np.random.default_rng(SYNTHETIC_SEED)
    count = max(1, chars // 5)
    chunks = []
    for number in range(documents):
        own = rng.integers(0, len(WORDS), size=8)
        picks = np.where(rng.random(count) < 0.5, rng.choice(own, size=count), rng.integers(0, len(WORDS), size=count))
        chunks.append(Chunk(f"synthetic-{number}", " ".join(WORDS[pick] for pick in picks)[:chars]))
    return chunks
