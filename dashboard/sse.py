"""Server-sent events, bytes in and events out (https://html.spec.whatwg.org/#server-sent-events)."""

from dataclasses import dataclass

from dashboard.health import EndpointError

MAX_EVENT_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; `id` is the last id that the stream had named by then."""

    id: str
    name: str
    data: str


class EventParser:
    """Reads one stream; a new connection takes a new parser."""

    def __init__(self) -> None:
        """Begin at the start of a stream."""
        self._rest = b""
        self._id = ""
        self._name = ""
        self._data: list[str] = []
        self._size = 0

    def push(self, chunk: bytes) -> list[ServerEvent]:
        """The events that this chunk completes.

        Only LF and CRLF end a line: a bare CR, which the standard also lets end one, cannot be
        told from half a CRLF at a chunk's end, and no server of ours sends it.

        Raises:
            EndpointError: If an event is larger than `MAX_EVENT_BYTES`.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        events = []
        for line in lines:
            event = self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                events.append(event)
        if self._size + len(self._rest) > MAX_EVENT_BYTES:
            msg = "sending oversized events"
            raise EndpointError(msg)
        return events

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        self._size += len(line)
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "id":
                self._id = value
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case _:
                pass  # A comment, or a field that means nothing to us.
        return None

    def _dispatch(self) -> ServerEvent | None:
        event = None
        if self._data:
            event = ServerEvent(self._id, self._name or "message", "\n".join(self._data))
        self._name, self._data, self._size = "", [], 0
        return event
