"""Reading the /metrics of servers that run already, whoever started them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from live.bounded import MOST_METRICS, whole_text
from live.openai_api import error_type
from planner.run.buckets import check_bounds
from planner.spec import SpecError

LABELS = ("le", "source", "reason")  # told apart; over all others samples are summed
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One server's samples, and when they came (Unix time)."""

    time_s: float
    values: dict[str, float]


def samples(text: str) -> dict[str, float]:
    """vLLM's samples of a Prometheus exposition, as planner.watching.scrape.Scrape names them. Raises ValueError."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        if not family.name.startswith("vllm:"):
            continue
        for one in family.samples:
            if one.name.endswith(("_created", "_info")) or math.isnan(one.value):
                continue
            label = next((one.labels[name] for name in LABELS if name in one.labels), None)
            key = one.name if label is None else f"{one.name}[{label}]"
            found[key] = found.get(key, 0.0) + one.value
    check_bounds(found)
    return found


async def scrape(session: aiohttp.ClientSession, url: str) -> Answer | None:
    """One server's samples; None when it does not answer now, or with no samples."""
    try:
        async with session.get(url) as response:
            if response.status != 200:
                return None
            return Answer(time.time(), samples(await whole_text(response, MOST_METRICS)))
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None


def metrics_url(url: str) -> str:
    """http://HOST:PORT, with or without /v1 or /metrics, as the address of the samples."""
    return url.rstrip("/").removesuffix("/v1").removesuffix("/metrics") + "/metrics"


class Scraper:
    """Several servers read together: `read()` gives each one's answer, None for those that are silent."""

    def __init__(self, urls: Sequence[str], token: str | None = None) -> None:
        self.urls = tuple(metrics_url(url) for url in urls)
        self._headers = {"authorization": f"Bearer {token}"} if token else {}
        self._runner = asyncio.Runner()

    def __enter__(self) -> Scraper:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def read(self) -> list[Answer | None]:
        return self._runner.run(self._read())

    async def _read(self) -> list[Answer | None]:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as session:
            return list(await asyncio.gather(*(scrape(session, url) for url in self.urls)))

    def check(self, endpoint: str | None) -> None:
        """Raises SpecError where an address cannot be read, or has no samples of vLLM."""
        if endpoint is not None:
            self._runner.run(self._check_endpoint(endpoint))
        for url, answer in zip(self.urls, self.read(), strict=True):
            if answer is None:
                raise SpecError(
                    "--metrics {url}: does not answer; allowed: addresses of engines, http://HOST:PORT", url
                )
            if not answer.values:
                raise SpecError(
                    "--metrics {url}: has no samples named vllm:*; allowed: the /metrics of vLLM engines", url
                )

    async def _check_endpoint(self, endpoint: str) -> None:
        url = endpoint.rstrip("/").removesuffix("/v1")
        if not url.startswith(("http://", "https://")):
            raise SpecError("--endpoint {endpoint}: is no URL; allowed: http://HOST:PORT", endpoint)
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), headers=self._headers) as session,
                session.get(f"{url}/v1/models") as response,
            ):
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise SpecError(
                "--endpoint {endpoint}: cannot be reached ({error}); allowed: http://HOST:PORT",
                endpoint,
                str(error) or type(error).__name__,
            ) from None
        if status != 200:
            raise SpecError(
                "--endpoint {endpoint}: /v1/models answers {status} {reason}; give its token",
                endpoint,
                status,
                error_type(status),
            )
