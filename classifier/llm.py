"""The second opinion: an LLM through LiteLLM, asked for one of the labels and nothing else.

What it sees is an outline in words of a closed list, never headers. What it says is trusted only
as far as it fits the schema. Every call has a deadline of its own: LiteLLM's does not always hold.
"""

import asyncio
import contextlib
import importlib
import logging
import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import httpx

from classifier.contracts import Classification, ReasonCode, RequestView, Source
from classifier.label_odds import Token, label_share
from classifier.prompt import BUILT_IN_PROMPT, Prompt
from classifier.redaction import clean_reason, shown_url
from classifier.settings import ClassifierSettings

logger = logging.getLogger(__name__)

FAILURES_UNTIL_ABSENT = 3
# An odd request may well get an odd answer: it takes many of them to blame the LLM.
BAD_ANSWERS_UNTIL_ABSENT = 20
PROBE_SECONDS = 60.0
# An LLM that was given up has to answer this before it is asked about requests again.
TRIAL_VIEW = RequestView("GET", "/health")
LOGPROBS_REFUSED = frozenset({"BadRequestError", "UnsupportedParamsError"})
# Nothing can listen there.
NOWHERE = "http://127.0.0.1:0"
KEEP_LOADED = "30m"
# Servers that speak Ollama's chat API but know nothing of loading models.
NO_LOADING_HERE = frozenset({404, 405, 501})
MAX_ANSWER_TOKENS = 160
# Enough for labels that begin differently; some backends refuse to tell of more.
TOP_LOGPROBS = 5
# What a model says of itself is worth less than what its tokens show.
MAX_SAID_CONFIDENCE = 0.9
MAX_CONFIDENCE = 0.99


class LlmError(Exception):
    """The LLM gave no usable answer."""

    reason = "error"
    """Closed set, used as a metric label."""


class LlmTimeoutError(LlmError):
    """No answer in time."""

    reason = "timeout"


class LlmCallError(LlmError):
    """The backend refused the call or broke off."""

    reason = "call_failed"


class LlmMissingError(LlmCallError):
    """The backend is there but lacks the model; the message says what to do."""


class LlmAnswerError(LlmError):
    """An answer that does not fit the schema."""

    reason = "bad_answer"


FAILURE_REASONS = (LlmTimeoutError.reason, LlmCallError.reason, LlmAnswerError.reason)


class Llm:
    """One LLM backend: found by `watch`, asked by `ask`, given up after failures in a row."""

    def __init__(self, settings: ClassifierSettings) -> None:
        """A backend that has not been looked for yet."""
        self._settings = settings
        self._ollama = None if settings.llm_model else settings.ollama_base_url
        self._model = settings.llm_model or f"ollama_chat/{settings.ollama_model}"
        self._api_base = self._ollama or settings.llm_api_base
        self._litellm: ModuleType | None = None
        self._tells_logprobs = False
        self._failures = 0
        self._bad_answers = 0
        self._given_up = False
        self._said = ""
        self.prompt = BUILT_IN_PROMPT
        """How it is asked from now on."""
        self.available = False
        self.looked_for = asyncio.Event()
        """Set once the first search has ended, either way."""

    @staticmethod
    def configured(settings: ClassifierSettings) -> bool:
        """Whether the settings name any LLM."""
        return bool(settings.llm_model or settings.ollama_base_url)

    async def ask(self, view: RequestView) -> Classification:
        """Ask for the label of a request.

        Raises:
            LlmError: If there is no usable answer; a subclass says why.
        """
        try:
            answer = await self._answer(view)
        except LlmAnswerError:
            self._bad_answers += 1
            if self._bad_answers >= BAD_ANSWERS_UNTIL_ABSENT:
                self._give_up(f"{BAD_ANSWERS_UNTIL_ABSENT} unusable answers in a row")
            raise
        except LlmError:
            self._failures += 1
            if self._failures >= FAILURES_UNTIL_ABSENT:
                self._give_up(f"{FAILURES_UNTIL_ABSENT} failures in a row")
            raise
        self._failures = self._bad_answers = 0
        return answer

    async def watch(self) -> None:
        """Look for the backend whenever it is absent. Runs until cancelled."""
        while True:
            if not self.available:
                try:
                    await self._look_for()
                except Exception as exc:
                    # Supervisor: nobody awaits this task, and without it no LLM is found again.
                    self._say(logging.WARNING, f"no LLM: looking for it failed, {exc!r}")
                self.looked_for.set()
            await asyncio.sleep(self._settings.llm_probe_seconds)

    async def _answer(self, view: RequestView) -> Classification:
        prompt = self.prompt
        timeout_seconds = self._settings.llm_timeout_seconds
        try:
            async with asyncio.timeout(timeout_seconds):
                answer = await self._complete(prompt, view, timeout_seconds)
        except TimeoutError as exc:
            raise LlmTimeoutError(timeout_seconds) from exc
        except Exception as exc:
            # LiteLLM's errors share no root of their own; their text may hold the prompt.
            kind = type(exc).__name__
            if kind == "Timeout":
                raise LlmTimeoutError(timeout_seconds) from None
            if self._tells_logprobs and kind in LOGPROBS_REFUSED:
                # Nothing is tried twice; the next question goes without.
                self._tells_logprobs = False
            raise LlmCallError(kind) from None
        return _classification(prompt, view, answer)

    async def _complete(self, prompt: Prompt, view: RequestView, timeout_seconds: float) -> Any:  # noqa: ANN401 - LiteLLM's
        if self._litellm is None:
            raise LlmCallError("not loaded")  # noqa: EM101, TRY003 - cannot happen while available
        scoring = {"logprobs": True, "top_logprobs": TOP_LOGPROBS} if self._tells_logprobs else {}
        return await self._litellm.acompletion(
            model=self._model,
            api_base=self._api_base,
            messages=prompt.messages_for(view),
            response_format=prompt.answer_format,
            max_tokens=MAX_ANSWER_TOKENS,
            temperature=0,
            timeout=timeout_seconds,
            num_retries=0,
            max_retries=0,
            **scoring,
        )

    async def _look_for(self) -> None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                if self._ollama is not None:
                    await self._load_into_ollama(self._ollama)
                if self._litellm is None:
                    self._litellm = await asyncio.to_thread(_load_litellm, self._warmed_model())
                    self._tells_logprobs = _tells_logprobs(self._litellm, self._model)
                if self._given_up:
                    await self._answer(TRIAL_VIEW)
        except (httpx.HTTPError, TimeoutError) as exc:
            place = shown_url(self._ollama or self._model)
            self._say(logging.INFO, f"no LLM at {place} ({type(exc).__name__})")
        except LlmMissingError as exc:
            self._say(logging.WARNING, f"no LLM: {exc}")
        except LlmError as exc:
            self._say(logging.WARNING, f"no LLM: {self._model} still fails ({exc.reason})")
        else:
            self._failures = self._bad_answers = 0
            self._given_up = False
            self.available = True
            self._say(logging.INFO, f"LLM {self._model} is there")

    async def _load_into_ollama(self, base_url: str) -> None:
        """Have Ollama load the model: a generate call without a prompt does only that.

        Raises:
            httpx.HTTPError: If Ollama cannot be reached.
            LlmMissingError: If it does not have the model.
        """
        order = {"model": self._settings.ollama_model, "keep_alive": KEEP_LOADED, "stream": False}
        async with httpx.AsyncClient(trust_env=False, timeout=PROBE_SECONDS) as http:
            response = await http.post(f"{base_url}/api/generate", json=order)
        if response.status_code == httpx.codes.NOT_FOUND and "not found" in response.text[:500]:
            hint = "run scripts/pull-model.sh"
            msg = f"Ollama does not have the model {self._settings.ollama_model}; {hint}"
            raise LlmMissingError(msg)
        if response.status_code not in NO_LOADING_HERE:
            response.raise_for_status()

    def _warmed_model(self) -> str | None:
        """The model whose first call may be rehearsed; others might ask for keys on the network."""
        return None if self._ollama is None else self._model

    def _give_up(self, why: str) -> None:
        self.available = False
        self._given_up = True
        self._say(logging.WARNING, f"no LLM: {self._model} is given up for now ({why})")

    def _say(self, level: int, text: str) -> None:
        """Log a state once, when it comes to be."""
        if text != self._said:
            self._said = text
            logger.log(level, "%s", text)


def _classification(prompt: Prompt, view: RequestView, answer: Any) -> Classification:  # noqa: ANN401 - LiteLLM's
    """What an answer says.

    Raises:
        LlmAnswerError: If it does not fit the schema. The text stays out of the message: it may
            repeat the payload.
    """
    try:
        choice = answer.choices[0]
        label, verdict = prompt.read(choice.message.content)
    except Exception as exc:
        # Whatever is wrong with it, down to a list of no choices.
        raise LlmAnswerError(type(exc).__name__) from None
    share = label_share(_tokens(choice), label, prompt.labels)
    confidence = (
        min(verdict.confidence, MAX_SAID_CONFIDENCE)
        if share is None
        else min(share, MAX_CONFIDENCE)
    )
    reason = clean_reason(verdict.reasoning, view)
    return Classification(label, confidence, Source.LLM, reason, code=ReasonCode.LLM)


def _tokens(choice: Any) -> list[Token]:  # noqa: ANN401 - LiteLLM's
    """The tokens of an answer with their probabilities; none if the backend does not tell."""
    try:
        told = choice.logprobs.content or ()
        return [Token(one.token, _choices(one)) for one in told]
    except (AttributeError, TypeError):
        return []


def _choices(one: Any) -> dict[str, float]:  # noqa: ANN401 - LiteLLM's
    others: Iterable[Any] = one.top_logprobs or ()
    return {
        str(choice.token): float(choice.logprob)
        for choice in (*others, one)
        if choice.logprob is not None
    }


def _tells_logprobs(litellm: ModuleType, model: str) -> bool:
    """Whether LiteLLM says that this model's backend gives the probabilities of tokens."""
    with contextlib.suppress(Exception):  # unknown models; LiteLLM's errors share no root
        known = set(litellm.get_supported_openai_params(model=model) or ())
        return {"logprobs", "top_logprobs"} <= known
    return False


def _import_litellm() -> ModuleType:
    """Import LiteLLM: seconds and 150 MB, so only once there is something to call."""
    # Without it the import looks for a price list on the network.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    # In its other mode it puts the whole `.env` into this process's environment.
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    litellm = importlib.import_module("litellm")
    for switch, value in (
        ("telemetry", False),
        ("suppress_debug_info", True),
        ("drop_params", True),
    ):
        setattr(litellm, switch, value)
    logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    return litellm


def _load_litellm(warmed_model: str | None) -> ModuleType:
    """LiteLLM, ready to call. It imports half of itself at its first call and at its first error.

    Under load, with one core shared, that makes the first questions take seconds; so it happens
    here, in a thread, by a call that cannot be answered.
    """
    litellm = _import_litellm()
    if warmed_model is not None:
        with contextlib.suppress(Exception):  # it always fails; LiteLLM's errors share no root
            asyncio.run(
                litellm.acompletion(
                    model=warmed_model,
                    api_base=NOWHERE,
                    messages=BUILT_IN_PROMPT.messages_for(TRIAL_VIEW),
                    response_format=BUILT_IN_PROMPT.answer_format,
                    num_retries=0,
                    max_retries=0,
                )
            )
    return litellm
