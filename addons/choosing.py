"""Which requests become flows: all, none, or those that a filter, chance or a trusted client picks.

Asked once for each request, as soon as its head is there and before anything has been written.
"""

import random
from collections.abc import Callable
from functools import lru_cache
from typing import Literal

from addons.forwarding import Network, Peer, is_trusted
from addons.http1 import RequestHead
from addons.routing import INSPECT_HEADER

type Mode = Literal["all", "matching", "off"]
type HeadTest = Callable[[RequestHead, Peer], bool]

MAX_KNOWN_PEERS = 4_096
_HEADER = INSPECT_HEADER.encode()
_YES = b"1"


class Choice:
    """The choice in force; one for the life of the process, settings come by `take_over`."""

    def __init__(self, draw: Callable[[], float] | None = None) -> None:
        """Chooses all.

        Args:
            draw: Source of chance: numbers from 0 to below 1.
        """
        self._draw = draw or random.random
        self.take_over("all")

    def take_over(
        self,
        mode: Mode,
        fits: HeadTest | None = None,
        percent: float = 0,
        networks: tuple[Network, ...] = (),
    ) -> None:
        """Choose like this from now on; the rest counts only where the mode is `matching`.

        Args:
            mode: Which requests.
            fits: A test of what is known of a request when its head is there.
            percent: How many of a hundred are chosen by chance, 0 to 100.
            networks: Whose clients choose a request by the header `x-slb-inspect: 1`.
        """
        self._mode = mode
        self._fits = fits
        self._share = percent / 100
        # Asked for each request, worked out once per address: a reload makes a new memory.
        remember = lru_cache(MAX_KNOWN_PEERS)
        self._may_choose = remember(lambda address: is_trusted(address, networks))
        self._has_sources = bool(networks)

    @property
    def chooses_nothing(self) -> bool:
        """Whether it is to choose, and has nothing to go by."""
        return self._mode == "matching" and not (self._fits or self._share or self._has_sources)

    def wanted(self, head: RequestHead, peer: Peer) -> bool:
        """Whether a request becomes a flow.

        Args:
            head: What was asked; its body may be still to come.
            peer: Who has connected: the other end of the connection, whatever headers say.
        """
        if self._mode != "matching":
            return self._mode == "all"
        if self._has_sources and self._may_choose(peer.address) and _asks(head):
            return True
        if self._share and self._draw() < self._share:
            return True
        return self._fits is not None and self._fits(head, peer)


def _asks(head: RequestHead) -> bool:
    """Whether the header is there, once, and says yes."""
    values = [value for name, value in head.fields if name.lower() == _HEADER]
    return values == [_YES]
