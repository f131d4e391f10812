"""The command `router.explain`: asks the classifier why flows have their labels.

Not on the way of any request: it has a connection of its own, one question at a time, and every
question ends by itself.
"""

import logging
from collections.abc import Iterable, Sequence

from mitmproxy import ctx, http
from mitmproxy.flow import Flow
from mitmproxy.hooks import UpdateHook

from addons import flowview
from addons.questions import failure_text
from addons.settings import RouterSettings
from classifier.client import ClassifierClient, ClassifierError
from classifier.redaction import shown_path

logger = logging.getLogger(__name__)

MAX_FLOWS = 20
QUESTION_SECONDS = 30.0
# The service answers with what it has by then: an LLM may take its time.
SERVICE_SECONDS = 25.0


class Explainer:
    """Explains flows, those of one command at a time."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._busy = False

    def take(self, flows: Sequence[Flow]) -> list[http.HTTPFlow]:
        """The flows to explain, and the promise that `explain` follows.

        Raises:
            ValueError: If there are none or too many, or others are being explained.
        """
        chosen = [flow for flow in flows if isinstance(flow, http.HTTPFlow)]
        if self._busy:
            msg = "the flows of the last command are still being explained"
            raise ValueError(msg)
        if not 1 <= len(chosen) <= MAX_FLOWS:
            msg = f"name 1 to {MAX_FLOWS} HTTP flows, like @focus; these are {len(chosen)}"
            raise ValueError(msg)
        self._busy = True
        return chosen

    async def explain(self, flows: Iterable[http.HTTPFlow], settings: RouterSettings) -> None:
        """Ask about each, log the answer and note it in the flow."""
        try:
            client = ClassifierClient(
                settings.classifier_url, timeout_seconds=QUESTION_SECONDS, max_connections=1
            )
            async with client:
                for flow in flows:
                    await _explain(client, flow, settings.classify_body_bytes)
        except Exception as exc:
            # Supervisor: nobody awaits this task.
            logger.error("explaining failed: %s", failure_text(exc))
        finally:
            self._busy = False


async def _explain(client: ClassifierClient, flow: http.HTTPFlow, max_body_bytes: int) -> None:
    view = flowview.view_of(flow.request, max_body_bytes)
    shown = f"{view.method} {shown_path(view.path)}"
    try:
        answer = await client.explain(view, int(SERVICE_SECONDS * 1000))
    except ClassifierError as exc:
        logger.warning("%s cannot be explained: the classifier fails (%s)", shown, exc.reason)
        return
    logger.info("%s: %s", shown, flowview.show_explanation(flow, answer))
    ctx.master.addons.trigger(UpdateHook([flow]))
