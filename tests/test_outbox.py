"""What is written in one turn goes out together, in order, and nothing of it is lost or held."""

import asyncio

from addons.outbox import SENT_AT_ONCE_BYTES, BatchingProtocol, Outbox
from tests.stand_ins import Transport


def connection_of(outbox: Outbox) -> tuple[BatchingProtocol, Transport]:
    connection, transport = BatchingProtocol(outbox), Transport()
    connection.transport = transport
    return connection, transport


async def test_what_is_written_in_one_turn_goes_out_at_its_end_in_order() -> None:
    outbox = Outbox()
    (one, first), (other, second) = connection_of(outbox), connection_of(outbox)

    one.send(b"a")
    other.send(b"b")
    one.send(b"c")
    assert (first.written, second.written) == (b"", b"")
    await asyncio.sleep(0)

    assert (first.written, second.written) == (b"ac", b"b")


async def test_much_is_not_held() -> None:
    connection, transport = connection_of(Outbox())

    connection.send(b"a")
    connection.send(b"b" * SENT_AT_ONCE_BYTES)

    assert len(transport.written) == 1 + SENT_AT_ONCE_BYTES


async def test_a_closed_connection_sends_nothing() -> None:
    connection, transport = connection_of(Outbox())

    connection.send(b"a")
    connection.closed = True
    connection.send(b"b")
    await asyncio.sleep(0)

    assert transport.written == b""


async def test_a_connection_that_cannot_send_does_not_keep_others_from_it(caplog) -> None:
    outbox = Outbox()
    (broken, _), (whole, transport) = connection_of(outbox), connection_of(outbox)
    del broken.transport

    broken.send(b"a")
    whole.send(b"b")
    await asyncio.sleep(0)

    assert transport.written == b"b"
    assert "could not send: AttributeError" in caplog.text
