"""Pools: parsing of upstreams, round robin, leases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addons.pool import Pool, Worker, parse_workers
from classifier.contracts import Label


def pool_of(count: int) -> Pool:
    return Pool(Label.GENERAL, [Worker("http", "w", 9000 + index) for index in range(count)])


@given(st.integers(1, 7), st.integers(0, 60))
def test_round_robin_gives_each_worker_its_turn(workers, requests) -> None:
    pool = pool_of(workers)

    ports = [pool.lease().worker.port for _ in range(requests)]

    assert ports == [9000 + turn % workers for turn in range(requests)]


@given(st.lists(st.booleans(), max_size=40))
def test_inflight_counts_the_leases_that_are_out(actions) -> None:
    pool, held = pool_of(3), []
    for take in actions:
        if take or not held:
            held.append(pool.lease())
        else:
            held.pop().release()
        assert sum(state.inflight for state in pool.states) == len(held)


def test_a_lease_is_given_back_once() -> None:
    pool = pool_of(1)
    lease = pool.lease()

    lease.release(failed=True)
    lease.release(failed=True)

    state = pool.states[0]
    assert (state.inflight, state.requests, state.errors) == (0, 1, 1)


def test_a_pool_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="no worker"):
        Pool(Label.GENERAL, [])


@pytest.mark.parametrize(
    ("upstream", "worker"),
    [
        ("http://localhost:9001", Worker("http", "localhost", 9001)),
        (" http://10.0.0.1:80/ ", Worker("http", "10.0.0.1", 80)),
        ("https://workers.example.com", Worker("https", "workers.example.com", 443)),
        ("http://[::1]:9001", Worker("http", "::1", 9001)),
    ],
)
def test_an_upstream_is_scheme_host_and_port(upstream, worker) -> None:
    assert parse_workers(upstream) == (worker,)


def test_the_name_of_an_ipv6_worker_has_brackets() -> None:
    assert Worker("http", "::1", 9001).url == "http://[::1]:9001"


@pytest.mark.parametrize(
    "upstream",
    [
        *("localhost:9001", "ftp://a:1", "http://", "http://a:0", "http://a:99999", "http://a:b"),
        *("http://a/path", "http://a?x", "http://user@a:1", "http://a b:1", "//a:1", "http://[::1"),
    ],
)
def test_anything_else_is_refused_with_an_example(upstream) -> None:
    with pytest.raises(ValueError, match="write scheme, host and port, like http://"):
        parse_workers(upstream)


@pytest.mark.parametrize("upstreams", ["", " , ,"])
def test_an_empty_pool_is_refused(upstreams) -> None:
    with pytest.raises(ValueError, match="the pool is empty"):
        parse_workers(upstreams)


def test_a_worker_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="named twice"):
        parse_workers("http://a:1,http://b:1,http://a:1/")
