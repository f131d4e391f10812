"""The part of the control port that changes something. All of it is POST, and asks the gate."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as HttpRoute

from addons import gate
from addons.fleet import UnknownPoolError
from addons.pool import UnknownWorkerError
from addons.reload import Reloaded
from classifier.configuration import SettingsError


@dataclass(frozen=True, slots=True)
class Operations:
    """What operators can have done.

    Attributes:
        drain: Give a worker of a pool no new requests; takes their names.
        undrain: Give it requests again.
        reload: Take over what environment and `.env` say now, or raise a SettingsError.
        clear_cache: Forget the labels; returns how many.
        token: The ADMIN_TOKEN in force; empty if there is none.
    """

    drain: Callable[[str, str], None]
    undrain: Callable[[str, str], None]
    reload: Callable[[], Reloaded]
    clear_cache: Callable[[], int]
    token: Callable[[], str]


class Admin:
    """Answers operators' requests."""

    def __init__(self, operations: Operations, caller: "Caller | None" = None) -> None:
        """Has done what it is asked for by the given operations.

        Args:
            operations: What can be done.
            caller: Who asks; without it, whoever has connected.
        """
        self._operations = operations
        self._caller = caller or peer_of

    def routes(self) -> list[HttpRoute]:
        """What it answers; other methods than POST get a 405."""
        worker = "/v1/pools/{pool}/workers/{worker}"
        answers: dict[str, Callable[[Request], Response]] = {
            f"{worker}/drain": self._drain,
            f"{worker}/undrain": self._undrain,
            "/v1/reload": self._reload,
            "/v1/cache/clear": self._clear_cache,
        }
        return [
            HttpRoute(path, self._guarded(answer), methods=["POST"])
            for path, answer in answers.items()
        ]

    def _guarded(self, answer: Callable[[Request], Response]) -> Callable[[Request], Any]:
        async def guarded(request: Request) -> Response:
            peer = self._caller(request)
            if peer is not None:
                why = gate.refusal(peer, request.headers.items(), self._operations.token())
                if why is not None:
                    return _error(403, "forbidden", why)
            return answer(request)

        return guarded

    def _drain(self, request: Request) -> Response:
        return self._set_draining(request, self._operations.drain, draining=True)

    def _undrain(self, request: Request) -> Response:
        return self._set_draining(request, self._operations.undrain, draining=False)

    @staticmethod
    def _set_draining(
        request: Request, operation: Callable[[str, str], None], *, draining: bool
    ) -> Response:
        pool, worker = request.path_params["pool"], request.path_params["worker"]
        try:
            operation(pool, worker)
        except UnknownPoolError as exc:
            return _error(404, "unknown_pool", str(exc))
        except UnknownWorkerError as exc:
            return _error(404, "unknown_worker", str(exc))
        return JSONResponse({"pool": pool, "worker": worker, "draining": draining})

    def _reload(self, _: Request) -> Response:
        try:
            return JSONResponse(asdict(self._operations.reload()))
        except SettingsError as exc:
            return _error(422, "settings_refused", str(exc))

    def _clear_cache(self, _: Request) -> Response:
        return JSONResponse({"forgotten": self._operations.clear_cache()})


type Caller = Callable[[Request], str | None]
"""The address of who asks; None for who need not ask the gate."""


def peer_of(request: Request) -> str:
    """The address of whoever has connected; empty, which is nobody's, if it has left already."""
    return request.client.host if request.client else ""


def by_way_of_supervisor(request: Request) -> str | None:
    """On a socket that only the supervisor can open: for whom it asks; None if for itself."""
    return request.headers.get(gate.ON_BEHALF_OF)


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)
