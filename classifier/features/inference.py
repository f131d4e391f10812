"""Requests to models: generation, embedding, prediction, and media sent to be processed."""

import re
from itertools import islice
from typing import Final

from pydantic import JsonValue

from classifier.features.magnitudes import log
from classifier.features.request import Parts
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, split_name

_PROMPTS: Final = vocabulary("""
    messages prompt prompts input inputs contents text texts documents question system
    instructions chat_history conversation instances content passages query_text sentences
    inputtext parts textinputs history utterance multimodalinput
""")
_TUNING: Final = vocabulary("""
    temperature max_tokens top_p top_k max_completion_tokens stop frequency_penalty
    presence_penalty n_predict num_predict max_new_tokens parameters generationconfig
    max_output_tokens seed num_ctx stream tools tool_choice response_format voice
    negative_prompt guidance_scale num_inference_steps steps cfg_scale sampler input_type
    encoding_format dimensions truncate logprobs maxtokens inferenceconfig options
    repeat_penalty normalize width height aspect_ratio samples diffusion num_images
    num_outputs response_modalities reasoning reasoning_effort thinking texttospeech
    audio_format output_format voice_id speed safetysettings
""")
_JOBS: Final = vocabulary("""
    training_file base_model hyperparameters epochs n_epochs validation_file learning_rate
    dataset trainingdata training_data basemodel batch_size suffix input_file_id
    completion_window endpoint
""")
_MODELS: Final = vocabulary("""
    model modelid model_id engine model_name modelname deployment
""")
_MAX_KEYS: Final = 60
_MAX_PARTS: Final = 20
_PART: Final = re.compile(
    r'Content-Disposition:[^\r\n]{0,200}?name="([^"\r\n]{1,60})"([^\r\n]*)(?:\r?\nContent-Type:\s*([\w./+-]+))?',
    re.IGNORECASE,
)
_MEDIA: Final = re.compile(r"^(audio|video|image)/|^application/(pdf|octet-stream|zip|x-ndjson)")
# What every match begins with stands first, for it is looked for much faster than a pattern.
_TURNS: Final = re.compile(r"role(?<!\wrole)\"?\s*:\s*\"?(?:user|system|assistant)\b")
_FILENAME: Final = re.compile(r'filename="[^"]*\.(\w{2,5})"', re.IGNORECASE)
_MAX_CHARS: Final = 20_000
_MEDIA_KEYS: Final = (
    '"image_url"', '"input_audio"', '"inline_data"', '"inlinedata"', '"image_base64"',
)  # fmt: skip
_DATA_URI: Final = re.compile(r"data:(?:image|audio|video|application/pdf)[^,]{0,40};base64")


def read_inference(parts: Parts, bag: dict[str, float]) -> None:
    """Add what says that a model is asked to work."""
    document = parts.document
    text = parts.text[:_MAX_CHARS]
    if _TURNS.search(text):
        bag["ai=turns"] = 1.0
    if isinstance(document, dict):
        _model_call(document, bag)
        if _has_media(text):
            bag["ai=media-part"] = 1.0
    if parts.media.startswith("multipart/"):
        _multipart(parts, bag)
    found = _MEDIA.match(parts.media)
    if found:
        bag[f"media={found[1] or found[2]}"] = 1.0


def _has_media(text: str) -> bool:
    """Whether a body carries or names a picture or the like beside its text."""
    lower = text.lower()
    if any(key in lower for key in _MEDIA_KEYS):
        return True
    return ";base64" in lower and _DATA_URI.search(lower) is not None


def _model_call(document: dict[str, JsonValue], bag: dict[str, float]) -> None:
    names = {key.lower() for key in islice(document, _MAX_KEYS)}
    prompts, tuning, jobs = names & _PROMPTS, names & _TUNING, names & _JOBS
    model = not _MODELS.isdisjoint(names)
    if prompts:
        bag["ai=prompt"] = 1.0
        bag[f"ai=prompt{'+model' if model else ''}{'+tuning' if tuning else ''}"] = 1.0
    if model:
        bag["ai=model"] = 1.0
    if tuning:
        bag["ai=tuning"] = 1.0
        bag["ai.tuning"] = min(4, len(tuning)) / 2
    if jobs:
        bag[f"ai=job:{min(2, len(jobs))}"] = 1.0
    if (
        _is_chat(document.get("messages"))
        or _is_chat(document.get("contents"))
        or _is_chat(document.get("input"))
    ):
        bag["ai=chat"] = 1.0
    for name in ("input", "inputs", "texts", "instances", "documents", "prompt"):
        value = document.get(name)
        if isinstance(value, list):
            bag["ai.items"] = log(len(value))
            bag["ai=items"] = 1.0


def _is_chat(messages: JsonValue) -> bool:
    """Whether a value is a list of turns with roles."""
    if not isinstance(messages, list) or not messages:
        return False
    first = messages[0]
    return isinstance(first, dict) and ("role" in first or "parts" in first)


def _multipart(parts: Parts, bag: dict[str, float]) -> None:
    text = parts.text[:16_000]
    for part in islice(_PART.finditer(text), _MAX_PARTS):
        name, rest, media = part.groups("")
        for word in split_name(name)[:3]:
            bag[f"part.w={word}"] = 1.0
            for group in groups(word):
                bag[f"part={group}"] = 1.0
        found = _MEDIA.match(media)
        if found:
            bag[f"part.media={found[1] or found[2]}"] = 1.0
        extension = _FILENAME.search(rest)
        if extension:
            bag[f"part.ext={_EXTENSIONS.get(extension[1].lower(), 'other')}"] = 1.0


_EXTENSIONS: Final = {
    **dict.fromkeys(("mp3", "wav", "m4a", "ogg", "flac", "webm", "opus", "aac"), "audio"),
    **dict.fromkeys(("mp4", "mov", "avi", "mkv"), "video"),
    **dict.fromkeys(("png", "jpg", "jpeg", "gif", "webp", "tiff", "bmp"), "image"),
    **dict.fromkeys(("pdf", "docx", "doc", "pptx", "odt", "html", "md"), "document"),
    **dict.fromkeys(("csv", "xlsx", "jsonl", "ndjson", "json", "xml", "parquet", "sql"), "table"),
    **dict.fromkeys(("zip", "tar", "gz", "tgz", "jar", "whl"), "archive"),
}
