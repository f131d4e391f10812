"""Numbers that scale the work: page sizes, time spans, counts, as coarse magnitudes."""

# The cut-offs are the features; a name for each would say less than the number does.
# ruff: noqa: PLR2004

import math
import re
from datetime import date
from typing import Final

_DURATION: Final = re.compile(
    r"(\d{1,9})\s*(min|mon|mo|sec|day|hour|week|month|year|ms|s|m|h|d|w|M|y)s?(?:Ago|_ago)?(?![a-zA-Z])"
)
_ISO_DURATION: Final = re.compile(r"^-?PT?(\d{1,6})([SMHDWY])")
_SECONDS: Final = {
    "ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "d": 86_400,
    "day": 86_400, "w": 604_800, "week": 604_800, "M": 2_592_000, "mo": 2_592_000,
    "mon": 2_592_000, "month": 2_592_000, "y": 31_536_000, "year": 31_536_000,
}  # fmt: skip
_DATE: Final = re.compile(r"(?<!\d)(\d{4})-(\d{2})(?:-(\d{2}))?")
_EPOCH_MIN: Final = 1_000_000_000
_EPOCH_MS: Final = 10_000_000_000


def bucket(value: float) -> str:
    """A page size as a word: `one`, `few`, `page`, `large`, `huge`."""
    for limit, name in ((0, "zero"), (1, "one"), (20, "few"), (100, "page"), (999, "large")):
        if value <= limit:
            return name
    return "k" if value < 10_000 else "huge"


def log(value: float) -> float:
    """log10 of 1 + value, so that 0 stays 0; never negative, at most 9."""
    return min(9.0, math.log10(1 + value)) if value > 0 else 0.0


def seconds(text: str) -> float | None:
    """A duration such as `5m` or `now-30d` in seconds."""
    iso = _ISO_DURATION.match(text[:20])
    if iso:
        unit = iso[2].lower() if iso[2] != "M" or "T" in text[:4] else "M"
        return int(iso[1]) * _SECONDS[unit]
    found = _DURATION.search(text[:60])
    return int(found[1]) * _SECONDS[found[2]] if found else None


def instant(text: str) -> float | None:
    """A date, an epoch in seconds or milliseconds, as epoch seconds."""
    text = text[:40]
    digits = text.partition(".")[0]
    if digits.isascii() and digits.isdigit() and len(digits) < 20:
        number = int(digits)
        if number < _EPOCH_MIN:
            return None
        return _scaled(number)
    found = _DATE.search(text)
    if not found:
        return None
    year, month, day = int(found[1]), int(found[2]), int(found[3] or 1)
    if not (1970 <= year <= 2200 and 1 <= month <= 12 and 1 <= day <= 31):
        return None
    return date(year, month, 1).toordinal() * 86_400.0 + day * 86_400.0 + _clock(text)


def _scaled(number: int) -> float:
    """Epoch seconds of a number of seconds, milli-, micro- or nanoseconds."""
    for factor in (1, 1_000, 1_000_000, 1_000_000_000):
        if number < _EPOCH_MS * factor:
            return number / factor
    return number / 1_000_000_000


def _clock(text: str) -> float:
    found = re.search(r"T(\d{2}):(\d{2})", text)
    return int(found[1]) * 3600.0 + int(found[2]) * 60.0 if found else 0.0


def span(seconds_long: float) -> str:
    """A time span as a word."""
    for limit, name in (
        (7_200, "hours"),
        (172_800, "day"),
        (700_000, "week"),
        (3_000_000, "month"),
    ):
        if seconds_long <= limit:
            return name
    return "quarter" if seconds_long < 9_000_000 else "year"
