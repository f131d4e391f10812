"""Labels from the configured classifier service: a `LabelSource` and the client beneath it."""

import time

from addons.classification import LabelSource, Limits
from addons.settings import RouterSettings
from classifier.client import ClassifierClient
from classifier.contracts import Classification, RequestView

# A question may outlive its request by this much, to fill the cache all the same.
LATE_ANSWER_SECONDS = 5.0
# The service answers with what it has when this share of our own deadline is over.
SERVICE_DEADLINE_SHARE = 0.8

# httpcore looks at every connection for every question: more of them make each one slower.
MAX_CONNECTIONS = 32


class ServiceLabels(LabelSource):
    """A label source that asks one classifier service, within the bounds of the settings."""

    def __init__(self, settings: RouterSettings) -> None:
        """Prepare; nothing is connected yet."""
        self._settings = settings
        self._deadline_ms = max(1, int(settings.classify_timeout_ms * SERVICE_DEADLINE_SHARE))
        self._client = ClassifierClient(
            settings.classifier_url,
            timeout_seconds=settings.classify_timeout_ms / 1000 + LATE_ANSWER_SECONDS,
            max_connections=min(settings.classify_max_inflight, MAX_CONNECTIONS),
        )
        super().__init__(self._ask_service, limits_of(settings), time.monotonic)

    def serves(self, settings: RouterSettings) -> bool:
        """Whether it asks the service of these settings, within their bounds."""
        same_service = settings.classifier_url == self._settings.classifier_url
        return same_service and limits_of(settings) == limits_of(self._settings)

    async def close(self) -> None:
        """Close at exit: nobody waits for a label any more."""
        await self.aclose()
        await self._client.aclose()

    async def retire(self) -> None:
        """Close after a change of settings: requests under way still wait for their labels."""
        await self.drain()
        await self._client.aclose()

    async def _ask_service(self, view: RequestView) -> Classification:
        return await self._client.classify(view, self._deadline_ms)


def limits_of(settings: RouterSettings) -> Limits:
    """The bounds of the label source, in its own units."""
    return Limits(
        timeout_seconds=settings.classify_timeout_ms / 1000,
        max_inflight=settings.classify_max_inflight,
        cache_entries=settings.cache_entries,
        cache_ttl_seconds=settings.cache_ttl_seconds,
    )
