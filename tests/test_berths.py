"""A berth is filled by one process at a time, whoever restarts and whoever replaces."""

import asyncio
import itertools

import pytest

from addons import berths
from addons.berths import Berth
from tests.test_probes import until


class Process:
    """A process that ends when it is told to."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ready = True
        self.stands_in = False
        self.code: int | None = None
        self._ended = asyncio.Event()

    async def ended(self) -> int:
        await self._ended.wait()
        assert self.code is not None
        return self.code

    async def end(self, code: int = 0) -> None:
        self.code = code
        self._ended.set()


class House:
    """Keeps berths, and all processes that it has started."""

    def __init__(self) -> None:
        self.stopping = asyncio.Event()
        self.started: list[Process] = []
        self.codes: list[int] = []
        self.lost_one = asyncio.Event()
        self.may_be_ready = asyncio.Event()
        self.may_be_ready.set()
        self._names = map(str, itertools.count(1))

    async def start(self) -> Process:
        self.started.append(Process(next(self._names)))
        return self.started[-1]

    async def until_ready(self, child: Process) -> bool:
        await self.may_be_ready.wait()
        return child.code is None

    def lost(self, code: int) -> None:
        self.codes.append(code)
        self.lost_one.set()

    @property
    def living(self) -> list[Process]:
        return [one for one in self.started if one.code is None]


async def settled() -> None:
    """Let all that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
def no_back_off(monkeypatch):
    monkeypatch.setattr(berths, "BACK_OFF_SECONDS", (0.0,))


async def occupied() -> tuple[House, Berth, asyncio.Task[None]]:
    house = House()
    berth = Berth(await house.start(), house)
    return house, berth, asyncio.create_task(berth.keep_filled())


async def leave(house: House, berth: Berth, keeping: asyncio.Task[None]) -> None:
    house.stopping.set()
    await berth.child.end()
    await keeping


async def test_who_dies_is_followed_by_one_that_stands_in(no_back_off) -> None:
    house, berth, keeping = await occupied()
    await berth.child.end(-9)
    await until(lambda: len(house.started) == 2)
    await settled()

    assert house.codes == [-9]
    assert house.living == [berth.child]
    assert berth.child.stands_in
    await leave(house, berth, keeping)


async def test_a_berth_that_is_filled_while_it_backs_off_stays_as_it_is(monkeypatch) -> None:
    monkeypatch.setattr(berths, "BACK_OFF_SECONDS", (0.0, 60.0, 0.0))
    house, berth, keeping = await occupied()
    await berth.child.end(-9)
    await house.lost_one.wait()
    assert await berth.replace()
    await settled()

    assert len(house.started) == 2
    assert house.living == [berth.child]
    assert not berth.child.stands_in
    # It is looked after like any other, at once and as if nothing had failed before.
    monkeypatch.setattr(berths, "BACK_OFF_SECONDS", (60.0, 0.0, 60.0))
    await berth.child.end(-9)
    await until(lambda: len(house.started) == 3)
    assert house.codes == [-9, -9]
    await leave(house, berth, keeping)


@pytest.mark.parametrize("replaced", [True, False])
async def test_who_restarts_waits_for_who_replaces(no_back_off, replaced) -> None:
    house, berth, keeping = await occupied()
    house.may_be_ready.clear()
    replacing = asyncio.create_task(berth.replace())
    await settled()
    await house.started[0].end(-9)
    async with asyncio.timeout(5):
        await house.lost_one.wait()
    await settled()
    assert len(house.started) == 2
    if not replaced:
        await house.started[1].end(2)
    house.may_be_ready.set()

    assert await replacing is replaced
    await until(lambda: berth.child is not house.started[0])
    assert house.living == [berth.child]
    assert len(house.started) == (2 if replaced else 3)
    await leave(house, berth, keeping)


async def test_one_that_is_replaced_is_not_lost(no_back_off) -> None:
    house, berth, keeping = await occupied()
    assert await berth.replace()
    await settled()

    assert house.codes == []
    assert house.living == [berth.child]
    await leave(house, berth, keeping)
