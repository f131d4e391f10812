"""A WebSocket client of few words, on a raw socket."""

import zlib

from wsproto import ConnectionType, WSConnection, events

from tests.wire import Client


class WebSocket:
    """A WebSocket that has been opened; the end of its context closes it without a word.

    Attributes:
        fields: Header fields of the answer to its handshake.
    """

    def __init__(self, port: int, target: str, *, timeout: float = 10) -> None:
        self._client = Client(port, timeout=timeout)
        self._protocol = WSConnection(ConnectionType.CLIENT)
        try:
            self.fields = self._open(target)
        except BaseException:
            self.abort()
            raise

    def __enter__(self) -> "WebSocket":
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def _open(self, target: str) -> dict[str, str]:
        self._send(events.Request(host="load.test", target=target))
        event = self._next()
        assert isinstance(event, events.AcceptConnection), event
        return {name.decode().lower(): value.decode() for name, value in event.extra_headers}

    def send(self, data: str | bytes) -> None:
        text = isinstance(data, str)
        self._send(events.TextMessage(data) if text else events.BytesMessage(data))

    def send_until_blocked(self, data: bytes, patience_seconds: float = 0.5) -> None:
        """Send again and again, and read nothing.

        Raises:
            TimeoutError: If the other side takes no more.
        """
        self._client.socket.settimeout(patience_seconds)
        while True:
            self.send(data)

    def message(self) -> str | bytes:
        """The next whole message."""
        parts = []
        while True:
            event = self._next()
            assert isinstance(event, events.Message), event
            parts.append(event.data)
            if event.message_finished:
                return ("" if isinstance(parts[0], str) else b"").join(parts)

    def close(self) -> str:
        """Close in agreement; returns the other side's reason."""
        self._send(events.CloseConnection(1000))
        event = self._next()
        while not isinstance(event, events.CloseConnection):
            event = self._next()
        self.abort()
        return event.reason or ""

    def abort(self) -> None:
        self._client.socket.close()

    def _send(self, event: events.Event) -> None:
        self._client.socket.sendall(self._protocol.send(event))

    def _next(self) -> events.Event:
        while True:
            for event in self._protocol.events():
                return event
            self._protocol.receive_data(self._client.socket.recv(262_144) or None)


def checksum(pieces: list[bytes]) -> str:
    """How a worker tells what it got: bytes and their CRC."""
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    return f"{sum(map(len, pieces))} {crc}"
