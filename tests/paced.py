"""Requests sent at a fixed rate, whether those before them were answered or not."""

import asyncio
import time
from collections.abc import Sequence

import httpx


def send(
    requests: Sequence[httpx.Request], per_second: float
) -> list[tuple[float, httpx.Response]]:
    """Seconds and answer of each request, in the order of the answers."""
    return asyncio.run(_send(requests, per_second))


async def _send(requests, per_second):
    answers: list[tuple[float, httpx.Response]] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=60, trust_env=False) as client:

        async def one(request: httpx.Request) -> None:
            sent = time.monotonic()
            answer = await client.send(request)
            answers.append((time.monotonic() - sent, answer))

        began = time.monotonic()
        async with asyncio.TaskGroup() as sending:
            for number, request in enumerate(requests):
                await asyncio.sleep(max(0.0, began + number / per_second - time.monotonic()))
                sending.create_task(one(request))
    return answers
