"""Settings of the classifier service."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from classifier.configuration import HttpUrl, Port, Settings


class LlmMode(StrEnum):
    """What a request does that the LLM is asked about."""

    BACKGROUND = "background"
    """It goes with the local label; the LLM's serves the next one like it."""
    WAIT = "wait"
    """It waits for the LLM, until its deadline."""


class ClassifierSettings(Settings):
    """Everything an operator can say about the classifier."""

    classifier_host: Annotated[
        str, Field(min_length=1, description="Address that the classifier listens on.")
    ] = "127.0.0.1"
    classifier_port: Annotated[Port, Field(description="Port that the classifier listens on.")] = (
        8001
    )
    classifier_cache_entries: Annotated[
        int, Field(ge=0, le=10_000_000, description="Most labels kept; 0 keeps none.")
    ] = 50_000
    classifier_cache_bytes: Annotated[
        int, Field(ge=0, description="Most memory for labels kept.")
    ] = 16_777_216
    classifier_cache_ttl_seconds: Annotated[
        int, Field(gt=0, description="How long a label is kept.")
    ] = 3_600
    cache_shapes: Annotated[
        bool,
        Field(description="Requests that differ only in ids, texts and the like share a label."),
    ] = True
    local_min_confidence: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="Below it the LLM is asked; empty: the model's own."),
    ] = None
    labels_file: Annotated[
        str,
        Field(max_length=4_096, description="TOML file with own labels and rules; empty: none."),
    ] = ""
    ollama_base_url: Annotated[
        HttpUrl | None, Field(description="Where Ollama listens; empty: no Ollama.")
    ] = "http://localhost:11434"
    ollama_model: Annotated[
        str, Field(min_length=1, max_length=200, description="Ollama model to ask when unsure.")
    ] = "mistral"
    llm_model: Annotated[
        Annotated[str, Field(max_length=200)] | None,
        Field(description="Any LiteLLM model to ask instead of Ollama's."),
    ] = None
    llm_api_base: Annotated[
        HttpUrl | None, Field(description="Where LLM_MODEL is served; empty: where LiteLLM knows.")
    ] = None
    llm_mode: Annotated[
        LlmMode, Field(description="Requests the LLM is asked about: background, or wait for it.")
    ] = LlmMode.BACKGROUND
    llm_min_local_probability: Annotated[
        float,
        Field(ge=0, le=1, description="The LLM's label is taken if the local model gives it that."),
    ] = 0.1
    llm_timeout_seconds: Annotated[
        float, Field(gt=0, le=600, description="Longest time for one answer of the LLM.")
    ] = 20.0
    llm_max_inflight: Annotated[
        int, Field(gt=0, le=1_000, description="Most questions to the LLM at once.")
    ] = 4
    llm_queue: Annotated[
        int, Field(ge=0, le=100_000, description="Most questions that wait for that.")
    ] = 64
    llm_probe_seconds: Annotated[
        float, Field(gt=0, description="How often an absent LLM is looked for.")
    ] = 10.0
