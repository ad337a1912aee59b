"""From a prompt's segments to what a server is sent: token ids, or text where a server takes no ids.

Equal content ids give equal tokens, counted from the segment's start, in every run with the same seed; other seeds
give other tokens, so that a server that is already warm does not find them in its cache.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from planner.traffic.requests import Request

_MASK = (1 << 64) - 1

# Short common words: one token each, with the space before it, in the usual vocabularies.
WORDS = tuple(
    """the of and to in is you that it he was for on are as with his they at be this have from or one had by word but
    not what all were we when your can said there use an each which she do how their if will up other about out many
    then them these so some her would make like him into time has look two more write go see number no way could people
    my than first water been call who oil its now find long down day did get come made may part over new sound take only
    little work know place year live me back give most very after thing our just name good sentence man think say great
    where help through much before line right too mean old any same tell boy follow came want show also around form
    three small set put end does another well large must big even such because turn here why ask went men read need land
    different home us move try kind hand picture again change off play spell air away animal house point page letter
    mother answer found study still learn should world high every near add food between own below country plant last
    school father keep tree never start city earth eye light thought head under story saw left few while along might
    close something seem next hard open example begin life always those both paper together got group often
    run""".split()
)


def token_range(vocab_size: int) -> tuple[int, int]:
    """Ids [low, high) that are ordinary tokens: special ones sit at either end of a vocabulary."""
    margin = min(1024, vocab_size // 8)
    return margin, vocab_size - margin


class PromptMaker:
    """Makes the prompts of one run. `answers` gives the token ids of earlier answers by request id."""

    def __init__(self, seed: int, vocab_size: int) -> None:
        self._seed = seed
        self._low, self._high = token_range(vocab_size)
        self._cached = lru_cache(maxsize=4096)(self._draw)
        self.replaced_tokens = 0  # of answers in a history that came shorter than planned, or without their ids

    def _draw(self, content: int, tokens: int) -> NDArray[np.uint32]:
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, content & _MASK])))
        return rng.integers(self._low, self._high, size=tokens, dtype=np.uint32)

    def segment(self, content: int, tokens: int) -> list[int]:
        """The first `tokens` token ids of a content id."""
        drawn: list[int] = self._cached(content, tokens).tolist()
        return drawn

    def token_ids(self, request: Request, answers: Mapping[int, Sequence[int]]) -> list[int]:
        """A prompt of exactly `request.prompt_tokens` ids; answers in its history are the ones that were given."""
        history = dict(request.history)
        ids: list[int] = []
        for content, tokens in request.segments:
            answer = answers.get(history[content], ())[:tokens] if content in history else ()
            ids += answer
            ids += self.segment(content, tokens)[len(answer) :]
            if content in history:
                self.replaced_tokens += tokens - len(answer)
        return ids

    def words(self, content: int, count: int) -> list[str]:
        """The first `count` words of a content id."""
        return [WORDS[token % len(WORDS)] for token in self.segment(content, count)]

    def text(self, request: Request, tokens_per_word: float, overhead_tokens: float) -> str:
        """A prompt of about `request.prompt_tokens` tokens; what a template adds is taken off its end."""
        words: list[str] = []
        for content, tokens in request.segments:
            words += self.words(content, round(tokens / tokens_per_word))
        keep = round((request.prompt_tokens - overhead_tokens) / tokens_per_word)
        return " ".join(words[: max(1, keep)])

    def question(self, request: Request) -> str:
        """Words that stand for the question of a document Q&A request: its last segment."""
        content, tokens = request.segments[-1]
        return " ".join(self.words(content, min(tokens, 64)))
