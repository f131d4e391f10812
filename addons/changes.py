"""Changes that operators order, made in all processes: reloads, drains, a cache that is cleared.

Invariants:
* A reload that the first process refuses reaches no other.
* Each process that serves has, by and by, the settings of the last reload: one that was starting
  meanwhile takes them before it counts as ready, one that hung as soon as it answers again.
* Who has missed a reload, and so may judge by an old ADMIN_TOKEN, is given no orders.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from addons import gate
from addons.admin import peer_of
from addons.children import Child, Fields

logger = logging.getLogger(__name__)

RELOAD = "/v1/reload"


class Changes:
    """Makes changes in all processes.

    Attributes:
        reloads: How many reloads there have been that some process has taken.
    """

    def __init__(self, serving: Callable[[], Sequence[Child]]) -> None:
        """Changes of the processes that `serving` returns, the oldest first."""
        self._serving = serving
        self.reloads = 0

    async def reload(self, headers: Fields) -> Response:
        """Reload the settings: in one process, and only if that takes them, in the others.

        One that hangs is not waited for, but named.
        """
        if not (children := self._serving()):
            return _no_process()
        hung = await _hung(children)
        awake = [child for child in children if child not in hung]
        if not awake:
            return _no_answer(children)
        # Who has missed a reload may know an old token: it judges nobody.
        first = next((child for child in awake if self.up_to_date(child)), awake[0])
        answer = await first.post(RELOAD, headers)
        if answer is None:
            return _no_answer([first])
        if not answer.is_success:
            return _as_it_is(answer)
        # Who becomes ready from here on sees that there is something new; who has is asked.
        self.reloads += 1
        first.reloads = self.reloads
        others = [child for child in self._serving() if child is not first]
        answers = await self._spread(others, headers, hung)
        return one_answer([first, *others], [answer, *answers], "they follow once they answer")

    async def catch_up(self, children: Sequence[Child]) -> None:
        """Have those take over the settings that have missed a reload: they were starting, or hung.

        Who asked for that reload was let in then.
        """
        late = list(children)
        # Meanwhile there may be another reload.
        while late := [child for child in late if not self.up_to_date(child)]:
            hung = await _hung(late)
            answers = await self._spread(late, [], hung)
            for child, answer in zip(late, answers, strict=True):
                if answer is not None and not answer.is_success:
                    logger.error("process %s does not take over what was reloaded", child.name)
            late = [
                child
                for child, answer in zip(late, answers, strict=True)
                if answer is not None and answer.is_success
            ]

    def up_to_date(self, child: Child) -> bool:
        """Whether a process has taken over all that was reloaded."""
        return child.reloads == self.reloads

    async def order_all(
        self, request: Request
    ) -> tuple[Sequence[Child], list[httpx.Response | None]]:
        """Have all processes do what a client asks for; what they answer."""
        children, headers = self._serving(), handed_on(request)
        path = request.scope["raw_path"].decode("ascii")

        async def order(child: Child) -> httpx.Response | None:
            return await child.post(path, headers) if self.up_to_date(child) else None

        return children, await asyncio.gather(*(order(child) for child in children))

    async def _spread(
        self, children: Sequence[Child], headers: Fields, hung: Sequence[Child]
    ) -> list[httpx.Response | None]:
        async def reload(child: Child) -> httpx.Response | None:
            return None if child in hung else await child.post(RELOAD, headers)

        number = self.reloads
        answers = await asyncio.gather(*(reload(child) for child in children))
        for child, answer in zip(children, answers, strict=True):
            if answer is not None and answer.is_success:
                child.reloads = max(child.reloads, number)
        return answers


async def _hung(children: Sequence[Child]) -> Sequence[Child]:
    answers = await asyncio.gather(*(child.get("/livez") for child in children))
    return [child for child, answer in zip(children, answers, strict=True) if answer is None]


def handed_on(request: Request) -> Fields:
    """The fields that the gate of a process looks at, as they came, and whose request it is."""
    fields = request.headers.raw
    kept = [(name, value) for name, value in fields if gate.looks_at(name.decode("latin-1"))]
    # Several are joined, for one is all that can be sent: no name of this machine either way.
    host = b", ".join(value for name, value in fields if name == b"host")
    return [*kept, (b"host", host), (gate.ON_BEHALF_OF.encode(), peer_of(request).encode())]


def one_answer(
    children: Sequence[Child],
    answers: Sequence[httpx.Response | None],
    remedy: str = "try again",
) -> Response:
    """What all say, if all say the same; else which of them did not do it, and what helps."""
    if not answers:
        return _no_process()
    done = [answer is not None and answer.is_success for answer in answers]
    statuses = {answer.status_code for answer in answers if answer is not None}
    if all(done) or (not any(done) and len(statuses) == 1):
        return _as_it_is(next(answer for answer in answers if answer is not None))
    failed = [child for child, was_done in zip(children, done, strict=True) if not was_done]
    msg = f"done by {sum(done)} of {len(done)} processes, not by {_names(failed)}; {remedy}"
    return _error(502, "partly_done", msg)


def _as_it_is(answer: httpx.Response) -> Response:
    content_type = answer.headers.get("content-type", "application/json")
    return Response(answer.content, answer.status_code, {"content-type": content_type})


def _no_process() -> Response:
    return _error(503, "no_process", "no process is ready; try again")


def _no_answer(children: Sequence[Child]) -> Response:
    return _error(504, "no_answer", f"no answer from process {_names(children)}; try again")


def _names(children: Sequence[Child]) -> str:
    return ", ".join(child.name for child in children)


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)
