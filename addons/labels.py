"""Labels from the configured classifier service: a `LabelSource` and the client beneath it."""

import time
from collections.abc import Callable

from addons.breaker import BreakerPolicy
from addons.classification import LabelSource, Limits
from addons.settings import RouterSettings
from classifier.client import ClassifierClient
from classifier.contracts import Classification, RequestView
from classifier.labels_file import NO_FILE, LabelsFile

# A question may outlive its request by this much, to fill the cache all the same, unless others
# need its place or the classifier has recovered in the meantime.
LATE_ANSWER_SECONDS = 5.0
# The service answers with what it has when this share of our own deadline is over.
SERVICE_DEADLINE_SHARE = 0.8


class ServiceLabels(LabelSource):
    """A label source that asks one classifier service, within the bounds of the settings."""

    def __init__(
        self,
        settings: RouterSettings,
        before: "ServiceLabels | None" = None,
        labels: LabelsFile = NO_FILE,
    ) -> None:
        """Prepare; nothing is connected yet.

        Args:
            settings: Say which service, and the bounds.
            before: What this one replaces; its labels are kept where they hold here as well.
            labels: The labels that can be routed.
        """
        self._settings = settings
        self._specs = labels.labels
        self._client = ClassifierClient(
            settings.classifier_url,
            timeout_seconds=settings.classify_timeout_ms / 1000 + LATE_ANSWER_SECONDS,
            # One each: a question that has its turn must not queue for a connection as well.
            max_connections=settings.classify_max_inflight,
            labels=labels.labels.keys(),
        )
        super().__init__(self._ask_service, limits_of(settings), time.monotonic)
        if before is not None and before.keeps_labels_as(settings, labels):
            self.share_cache(before)

    def serves(self, settings: RouterSettings, labels: LabelsFile = NO_FILE) -> bool:
        """Whether it asks the service of these settings for these labels, within their bounds."""
        same_service = settings.classifier_url == self._settings.classifier_url
        same_service = same_service and labels.labels == self._specs
        return same_service and limits_of(settings) == limits_of(self._settings)

    def keeps_labels_as(self, settings: RouterSettings, labels: LabelsFile = NO_FILE) -> bool:
        """Whether its labels are those of these settings, as many, and kept as long."""
        names = ("classifier_url", "cache_entries", "cache_ttl_seconds", "cache_shapes")
        # Rules may differ: what they decide is not kept.
        return labels.labels == self._specs and all(
            getattr(settings, name) == getattr(self._settings, name) for name in names
        )

    async def close(self) -> None:
        """Close at exit: nobody waits for a label any more."""
        await self.aclose()
        await self._client.aclose()

    async def retire(self) -> None:
        """Close after a change of settings: requests under way still wait for their labels."""
        await self.drain()
        await self._client.aclose()

    async def _ask_service(self, view: RequestView, seconds: float) -> Classification:
        deadline_ms = max(1, int(seconds * 1000 * SERVICE_DEADLINE_SHARE))
        return await self._client.classify(view, deadline_ms)


class LabelsInForce:
    """The labels file as it was last taken over.

    Unasked it is read only if its name has changed: a file is saved many times before it is
    finished, and an option that has nothing to do with it is no reason to look.
    """

    def __init__(self, read: Callable[[str], LabelsFile]) -> None:
        """No file yet.

        Args:
            read: Reads and checks a file; a SettingsError says why it cannot be used.
        """
        self.in_force = NO_FILE
        self.read = read
        self._path = ""
        self._handed_over: LabelsFile | None = None

    def hand_over(self, labels: LabelsFile) -> None:
        """Have the next change of settings take over these."""
        self._handed_over = labels

    def next_for(self, path: str) -> LabelsFile:
        """What settings that name this file bring with them.

        Raises:
            SettingsError: If it is another file, and cannot be used.
        """
        # Once: should the change be refused, its reversal finds the old ones.
        handed_over, self._handed_over = self._handed_over, None
        if handed_over is not None:
            return handed_over
        return self.in_force if path == self._path else self.read(path)

    def take_over(self, path: str, labels: LabelsFile) -> None:
        """These are in force from now on."""
        self._path, self.in_force = path, labels


class CurrentLabels:
    """Labels from the source in force when a request asks: it may have been replaced by then."""

    def __init__(self, source: Callable[[], LabelSource]) -> None:
        """Asks what `source` returns."""
        self._source = source

    def known(self, key: bytes) -> Classification | None:
        """What can be told at once of a request with this key; None if it has to be asked for."""
        return self._source().known(key)

    async def classify(self, view: RequestView, key: bytes | None = None) -> Classification:
        """The label of a request; always answers, never raises.

        Args:
            view: The request.
            key: Its key, if the caller has worked it out already.
        """
        return await self._source().classify(view, key)


def limits_of(settings: RouterSettings) -> Limits:
    """The bounds of the label source, in its own units."""
    return Limits(
        timeout_seconds=settings.classify_timeout_ms / 1000,
        max_inflight=settings.classify_max_inflight,
        max_queue=settings.classify_queue,
        cache_entries=settings.cache_entries,
        cache_ttl_seconds=settings.cache_ttl_seconds,
        fallback_ttl_seconds=settings.fallback_ttl_ms / 1000,
        provisional_ttl_seconds=settings.provisional_ttl_ms / 1000,
        breaker=BreakerPolicy(
            failures=settings.breaker_failures, open_seconds=settings.breaker_open_ms / 1000
        ),
        cache_shapes=settings.cache_shapes,
    )
