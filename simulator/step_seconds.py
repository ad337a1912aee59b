"""What steps take by an engine's law, as its steps are made up: the same batches come again and again."""

from __future__ import annotations

from collections.abc import Sequence as Items

from planner.engine.step_time import StepTime


class Law:
    """Seconds of a decode-only step: base, more for each token of context, and the host's to launch it."""

    __slots__ = ("base_s", "launch_s", "slope_s")

    def __init__(self, base_s: float, slope_s: float, launch_s: float) -> None:
        self.base_s = base_s
        self.slope_s = slope_s
        self.launch_s = launch_s


class StepSeconds:
    __slots__ = ("_laws", "_step")

    def __init__(self, step: StepTime) -> None:
        self._step = step
        self._laws: dict[int, Law] = {}  # by the batch

    def launch(self, tokens: int, batch: int) -> float:
        return self._step.launch(tokens, batch)

    def decodes(self, batch: int) -> Law:
        law = self._laws.get(batch)
        if law is None:
            base, slope = self._step.decode(batch)
            law = self._laws[batch] = Law(base, slope, self._step.launch(0, batch))
        return law

    def chunks(self, chunks: Items[tuple[int, int]], batch: int, context: float) -> float:
        """A chunk of one token costs what a decode does: same kernels, same CUDA graph."""
        if len(chunks) == 1 and chunks[0][0] > 1:
            return self._step.mixed(chunks, batch, context)
        wide = [chunk for chunk in chunks if chunk[0] > 1]
        if len(wide) < len(chunks):
            batch += len(chunks) - len(wide)
            context += sum(done for tokens, done in chunks if tokens == 1)
            if not wide:
                law = self.decodes(batch)
                return law.base_s + law.slope_s * context
        return self._step.mixed(wide, batch, context)
