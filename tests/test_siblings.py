"""What proxy processes tell each other, and what they make of it."""

import asyncio
import contextlib
import itertools
import json
import math
import random
import socket
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.accepting import Presence, create_counts
from addons.fleet import Fleet
from addons.health import Check, Outcome, Reason
from addons.hearsay import (
    MAX_BYTES,
    Checked,
    Drained,
    Ejected,
    Greeting,
    Labelled,
    labelled,
    pack,
    unpack,
)
from addons.labels import ServiceLabels
from addons.membership import COUNTS_FILE, clear_up
from addons.probes import seconds_to_turn
from addons.settings import RouterSettings
from addons.siblings import BATCH_SECONDS, MAX_UNTOLD, Siblings, address
from classifier.contracts import Classification, Label, ReasonCode, RequestView, Source
from classifier.labels_file import parse_labels_file
from tests.test_fleet import Counts
from tests.test_probes import no_tls, until

GENERAL = Label.GENERAL
WORKERS = [f"http://10.0.0.{number}:80" for number in (1, 2, 3, 4)]
ANSWER = Classification(
    Label.HIGH_COMPUTE,
    0.93,
    Source.LOCAL,
    "sums over rows",
    code=ReasonCode.AGGREGATION,
    weighed=(("sql:group", 1.25),),
)
CHECKED = Checked(worker=WORKERS[0], check=Check.FAILED, why=Reason.HEALTH_CHECK)


def told(answer: Classification = ANSWER, realm: str = "ab" * 8) -> Labelled:
    message = labelled(realm, b"\x01" * 16, b"\x02" * 16, answer)
    assert message is not None
    return message


# On the wire


def test_what_is_told_is_heard() -> None:
    messages = [
        Greeting(slot=3),
        CHECKED,
        Ejected(pool="general", worker="a:1", why=Reason.SERVER_ERRORS, seconds=9.5, ejections=2),
        Drained(pool="general", worker="a:1", draining=True),
        told(),
    ]
    (datagram,) = pack(messages)

    assert list(unpack(datagram).messages) == messages
    assert unpack(datagram).messages[-1].answer() == ANSWER.__class__(
        **{**{name: getattr(ANSWER, name) for name in ANSWER.__slots__}, "cached": True}
    )


def test_many_messages_make_several_datagrams_that_fit() -> None:
    messages = [told() for _ in range(200)]
    datagrams = pack(messages)

    assert len(datagrams) > 1
    assert all(len(one) <= MAX_BYTES for one in datagrams)
    assert sum(len(unpack(one).messages) for one in datagrams) == 200


@pytest.mark.parametrize(
    "answer",
    [
        Classification(GENERAL, 0.0, Source.FALLBACK, "timeout", code=ReasonCode.TIMEOUT),
        Classification(GENERAL, 1.0, Source.OVERRIDE, "forced"),
        Classification(GENERAL, 0.5, Source.LOCAL, "unsure", provisional=True),
    ],
)
def test_what_is_no_lasting_answer_of_the_classifiers_is_not_told(answer) -> None:
    assert labelled("ab" * 8, b"\x01" * 16, None, answer) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "fallback"},
        {"source": "override"},
        {"source": "nobody"},
        {"label": "No Label"},
        {"label": "x" * 500},
        {"confidence": 1.5},
        {"confidence": math.nan},
        {"reason": "x" * 2_000},
        {"code": "whatever"},
        {"exact": "xyz"},
        {"exact": "ab" * 257},
        {"exact": ""},
        {"shape": 7},
        {"realm": ""},
        {"weighed": [{"feature": "f", "weight": 1}] * 100},
        {"kind": "shell"},
    ],
)
def test_a_label_that_cannot_be_is_refused(changes) -> None:
    line = json.dumps({**json.loads(told().model_dump_json()), **changes}).encode()

    heard = unpack(line + b"\n" + CHECKED.model_dump_json().encode())
    assert heard.messages == (CHECKED,)
    assert heard.refused == 1


@given(st.binary(max_size=300))
def test_noise_is_refused_and_harms_nobody(noise) -> None:
    assert unpack(noise).messages == ()


def test_a_key_is_any_bytes_but_not_too_many() -> None:
    key = bytes(range(256))
    message = labelled("ab" * 8, key, None, ANSWER)

    assert unpack(pack([message])[0]).messages == (message,)
    assert bytes.fromhex(message.exact) == key
    assert labelled("ab" * 8, key + b"x", None, ANSWER) is None


# The line


class Notebook:
    def __init__(self, known=()):
        self.heard = []
        self._known = list(known)

    def hear(self, message):
        self.heard.append(message)

    def known(self):
        return self._known


@contextlib.contextmanager
def lines(folder, *notebooks):
    counts = create_counts(folder / "counts", 8)
    with contextlib.ExitStack() as stack:
        stack.callback(counts.close)
        opened = []
        for slot, notebook in enumerate(notebooks):
            Presence(counts, slot).begin()
            line = Siblings(folder, slot, counts, notebook)
            opened.append(line)
            stack.callback(line.close)
        yield opened


async def test_all_others_hear_and_the_teller_does_not(tmp_path) -> None:
    books = [Notebook() for _ in range(3)]
    with lines(tmp_path, *books) as (first, second, third):
        for line in (first, second, third):
            line.open()
        first.tell(CHECKED)

        await until(lambda: books[1].heard == books[2].heard == [CHECKED])
        assert books[0].heard == []
        assert [line.turn() for line in (first, second, third)] == [(0, 3), (1, 3), (2, 3)]


async def test_a_new_process_is_told_what_the_others_know(tmp_path) -> None:
    drained = Drained(pool="general", worker="a:1", draining=True)
    new = Notebook()
    with lines(tmp_path, Notebook([drained]), new) as (old, line):
        old.open()
        line.open()

        await until(lambda: new.heard == [drained])


async def test_what_is_told_within_a_moment_is_one_datagram(tmp_path) -> None:
    counts = create_counts(tmp_path / "counts", 8)
    for slot in (0, 1):
        Presence(counts, slot).begin()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(address(tmp_path, 1)))
        line = Siblings(tmp_path, 0, counts, Notebook())
        line.open()
        for _ in range(50):
            line.tell(CHECKED)
        line.close()

        assert len(unpack(other.recv(MAX_BYTES)).messages) == 51
    counts.close()


async def test_a_sibling_that_hears_nothing_holds_nobody(tmp_path) -> None:
    counts = create_counts(tmp_path / "counts", 8)
    for slot in (0, 1, 2):
        Presence(counts, slot).begin()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stuck:
        stuck.bind(str(address(tmp_path, 1)))
        line = Siblings(tmp_path, 0, counts, Notebook())
        line.open()
        # The third was never there: that is no error either.
        for _ in range(20):
            for _ in range(MAX_UNTOLD + 1):
                line.tell(told())
            line._flush()
        assert line.dropped > 0
        line.close()
    counts.close()
    assert not address(tmp_path, 0).exists()


async def test_who_is_not_there_yet_has_lost_nothing(tmp_path) -> None:
    counts = create_counts(tmp_path / "counts", 8)
    for slot in (0, 1, 2):
        Presence(counts, slot).begin()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(address(tmp_path, 1)))
    line = Siblings(tmp_path, 0, counts, Notebook())
    line.open()
    line.tell(CHECKED)
    line.close()

    assert line.dropped == 0
    counts.close()


def test_who_clears_up_does_so_behind_the_killed_but_not_the_living(tmp_path) -> None:
    directory = tmp_path / "slb-1"
    directory.mkdir()
    for name in (COUNTS_FILE, "2.metrics"):
        (directory / name).touch()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as killed:
        killed.bind(str(address(directory, 2)))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as living:
        living.bind(str(directory / "1.control"))
        living.listen()
        clear_up(directory)
        assert len(list(directory.iterdir())) == 4

    clear_up(directory)
    assert not directory.exists()


async def test_a_process_alone_tells_nobody(tmp_path) -> None:
    with lines(tmp_path, Notebook()) as (line,):
        line.open()
        line.tell(CHECKED)
        await asyncio.sleep(BATCH_SECONDS * 2)

        assert line.dropped == 0
        assert line.turn() == (0, 1)


# Whose turn it is to check


@given(st.floats(0, 1e6), st.sampled_from([0.05, 0.5, 7.0]), st.integers(1, 8), st.data())
def test_a_turn_comes_within_one_round(now, interval, count, data) -> None:
    index = data.draw(st.integers(0, count - 1))
    wait = seconds_to_turn(now, interval, index, count)

    slack = 1e-6 * max(1.0, now)
    assert interval / 2 - slack <= wait <= interval * (count + 0.5) + slack


@pytest.mark.parametrize("count", [2, 3, 4])
def test_together_they_check_as_often_as_one(count) -> None:
    rng = random.Random(1)
    checks = []
    for index in range(count):
        now = rng.random()
        while now < 100:
            now += seconds_to_turn(now, 0.5, index, count)
            checks.append(now)
    checks.sort()

    gaps = [after - before for before, after in itertools.pairwise(checks)]
    assert len(checks) == pytest.approx(200, abs=2 * count)
    assert max(gaps[count:-count]) == pytest.approx(0.5)


# What a fleet makes of it


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def fleets(count=2, **changes):
    """Fleets that hear each other at once."""
    settings = RouterSettings(
        _env_file=None,
        general_pool=",".join(WORKERS),
        high_compute_pool=WORKERS[0],
        fast_path_pool="http://10.0.0.9:80",
        **changes,
    )
    clock, made = Clock(), []

    def teller(index):
        def tell(message):
            for other, (fleet, _) in enumerate(made):
                if other != index:
                    (again,) = unpack(pack([message])[0]).messages
                    fleet.hear(again)

        return tell

    for index in range(count):
        counts = Counts()
        fleet = Fleet(counts, tls=no_tls, clock=clock, tell=teller(index), rng=random.Random(index))
        fleet.take_over(settings)
        made.append((fleet, counts))
    return clock, made


def health(fleet, label=GENERAL):
    return [view.health.value for view in fleet.pools[label].views()]


def fail_one(fleet, times):
    """Let requests to the first worker end with server errors."""
    pool = fleet.pools[GENERAL]
    for _ in range(times):
        lease = pool.lease(pool.workers[1:])
        lease.release(Outcome.SERVER_ERROR)


def test_a_check_counts_in_all_processes_and_is_counted_once() -> None:
    _, ((first, counted), (second, heard)) = fleets()
    worker = first.pools[GENERAL].workers[0]

    first._take_check(worker, Check.FAILED, Reason.HEALTH_CHECK)
    assert health(second)[0] == "up"
    second._take_check(worker, Check.FAILED, Reason.HEALTH_CHECK)

    assert health(first) == health(second) == ["down", "up", "up", "up"]
    assert health(first, Label.HIGH_COMPUTE) == health(second, Label.HIGH_COMPUTE) == ["down"]
    total = counted.ejections + heard.ejections
    assert total == Counter({
        (GENERAL, Reason.HEALTH_CHECK): 1, (Label.HIGH_COMPUTE, Reason.HEALTH_CHECK): 1,
    })  # fmt: skip

    for fleet in (first, second):
        fleet._take_check(worker, Check.PASSED, Reason.HEALTH_CHECK)
    assert health(first)[0] == health(second)[0] == "up"


def test_that_a_worker_is_not_to_blame_is_not_told() -> None:
    _, ((first, _), (second, _)) = fleets()
    worker = first.pools[GENERAL].workers[0]
    heard = []
    second.hear = heard.append

    first._take_check(worker, Check.PASSED, Reason.CONNECT_FAILED)
    assert heard == []

    first._take_check(worker, Check.UNREACHABLE, Reason.CONNECT_FAILED)
    assert [message.check for message in heard] == [Check.UNREACHABLE]


def test_an_ejection_is_taken_over_for_as_long_and_ends_by_itself() -> None:
    clock, ((first, counted), (second, heard)) = fleets(eject_seconds=10, eject_after_errors=5)
    fail_one(first, 5)

    assert health(first) == health(second) == ["ejected", "up", "up", "up"]
    view = second.pools[GENERAL].views()[0]
    assert view.ejected_seconds == 10.0
    assert view.ejections == 1
    assert counted.ejections == {(GENERAL, Reason.SERVER_ERRORS): 1}
    assert heard.ejections == {}

    clock.now += 10.1
    assert health(second)[0] == "up"
    # And the second time is twice as long in all of them, whoever decides.
    fail_one(second, 5)
    assert first.pools[GENERAL].views()[0].ejected_seconds == 20.0


def test_no_more_than_half_of_a_pool_is_ejected_whoever_says_so() -> None:
    _, ((fleet, _), _) = fleets()
    for worker in fleet.pools[GENERAL].workers:
        message = Ejected(
            pool="general", worker=worker.name, why=Reason.SERVER_ERRORS, seconds=5, ejections=1
        )
        fleet.hear(message)
    assert health(fleet).count("ejected") == 2

    only = fleet.pools[Label.HIGH_COMPUTE].workers[0].name
    fleet.hear(
        Ejected(pool="high-compute", worker=only, why=Reason.SERVER_ERRORS, seconds=5, ejections=1)
    )
    assert health(fleet, Label.HIGH_COMPUTE) == ["up"]


def test_a_drain_is_taken_over_and_told_to_who_comes_later() -> None:
    _, ((first, _), (second, _)) = fleets()
    name = first.pools[GENERAL].workers[0].name
    first.drain("general", name)
    assert second.pools[GENERAL].views()[0].draining

    _, ((newcomer, _),) = fleets(1)
    for message in first.known():
        newcomer.hear(message)
    assert newcomer.pools[GENERAL].views()[0].draining

    second.undrain("general", name)
    assert not first.pools[GENERAL].views()[0].draining
    assert first.known() == []


def test_ejections_are_told_to_who_comes_later() -> None:
    clock, ((first, _), _) = fleets(eject_seconds=10)
    fail_one(first, 5)
    clock.now += 4

    _, ((newcomer, _),) = fleets(1)
    for message in first.known():
        newcomer.hear(message)
    assert newcomer.pools[GENERAL].views()[0].ejected_seconds == 6.0


@pytest.mark.parametrize(
    "message",
    [
        Checked(worker="http://10.9.9.9:1", check=Check.FAILED, why=Reason.CONNECT_FAILED),
        Ejected(
            pool="nobody", worker="10.0.0.1:80", why=Reason.SERVER_ERRORS, seconds=5, ejections=1
        ),
        Ejected(
            pool="general", worker="10.9.9.9:1", why=Reason.SERVER_ERRORS, seconds=5, ejections=1
        ),
        Drained(pool="general", worker="10.9.9.9:1", draining=True),
        Drained(pool="nobody", worker="10.0.0.1:80", draining=True),
    ],
)
def test_what_is_about_others_changes_nothing(message) -> None:
    """Settings may differ for a while, when they are changed in one process after the other."""
    _, ((fleet, counts), _) = fleets()
    fleet.hear(message)

    assert health(fleet) == ["up"] * 4
    assert not any(view.draining for pool in fleet.pools.values() for view in pool.views())
    assert counts.ejections == {}


# What a label source makes of it


def label_source(heard=None, file=None, **changes):
    settings = RouterSettings(_env_file=None, **changes)
    tell = None if heard is None else heard.append
    labels = () if file is None else (file,)
    return ServiceLabels(settings, None, *labels, tell=tell)


async def known_at(source, view):
    """The label without a question; None if there would be one."""
    return source.known(view.fingerprint())


async def test_a_label_that_one_has_learnt_is_a_hit_for_all_of_its_shape() -> None:
    heard = []
    teacher, pupil = label_source(heard), label_source()
    ask_count = 0

    async def ask(view, seconds):
        nonlocal ask_count
        ask_count += 1
        return ANSWER

    teacher._questions._ask = ask
    pupil._questions._ask = ask
    await teacher.classify(RequestView("GET", "/reports/7"))
    (message,) = heard
    pupil.hear(message)

    for path in ("/reports/7", "/reports/8"):
        label = await pupil.classify(RequestView("GET", path))
        assert label.cached
        assert (label.label, label.source, label.code) == (
            ANSWER.label, ANSWER.source, ANSWER.code,
        )  # fmt: skip
    assert ask_count == 1
    assert (pupil.cache_hits, pupil.shape_hits, pupil.shape_misses) == (1, 1, 0)
    await teacher.close()
    await pupil.close()


@pytest.mark.parametrize(
    "changes", [{"classifier_url": "http://localhost:7777"}, {"cache_shapes": False}]
)
async def test_a_label_of_another_realm_is_not_taken(changes) -> None:
    heard = []
    teacher, stranger = label_source(heard), label_source(**changes)
    teacher.on_kept(b"\x01" * 16, None, ANSWER)
    stranger.hear(heard[0])

    assert stranger.known(b"\x01" * 16) is None
    assert stranger.cache_entries == 0


async def test_labels_of_other_label_files_are_not_taken() -> None:
    text = b'[labels.reports]\ndescription = "x"\npool = "http://localhost:9004"\n'
    heard = []
    teacher, stranger = label_source(heard, parse_labels_file(text)), label_source()
    teacher.on_kept(b"\x01" * 16, None, ANSWER)
    stranger.hear(heard[0])
    stranger.hear(heard[0].model_copy(update={"realm": stranger._realm, "label": "reports"}))

    assert stranger.cache_entries == 0


async def test_who_keeps_no_labels_takes_none() -> None:
    heard = []
    teacher, forgetful = label_source(heard), label_source(cache_entries=0)
    teacher.on_kept(b"\x01" * 16, b"\x02" * 16, ANSWER)
    forgetful.hear(heard[0])

    assert forgetful.cache_entries == 0
    assert forgetful.shape_entries == 0
