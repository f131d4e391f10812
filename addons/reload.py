"""What a reload changes: environment, `.env` and labels file, read anew, against what is in force.

An option that was given by hand, with `--set` or live, is not undone: only those follow `.env` that
came from there. All that is new is taken over in one step, after all of it has been found good.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from dotenv.parser import parse_stream

from addons.settings import AdminSettings, RouterSettings
from classifier.configuration import SettingsError, load
from classifier.labels_file import LabelsFile

logger = logging.getLogger(__name__)

ENV_FILE = Path(".env")
LABELS_FILE = "labels_file"
NAMES = RouterSettings.model_fields.keys() | AdminSettings.model_fields.keys()


@dataclass(frozen=True, slots=True)
class Sources:
    """What environment and `.env` say at one time.

    Attributes:
        has_file: Whether there is an `.env`.
    """

    settings: RouterSettings
    admin: AdminSettings
    has_file: bool


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a reload.

    Attributes:
        changed: The settings that have a new value, by the names of their variables.
        kept: Those that `.env` changes as well, but that were given by hand.
    """

    changed: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    def text(self) -> str:
        """One line for people; it names no value, for values may be secrets."""
        changed = f"{', '.join(self.changed)} changed" if self.changed else "nothing changed"
        return (
            f"{changed}; given by hand and kept: {', '.join(self.kept)}" if self.kept else changed
        )


@dataclass(frozen=True, slots=True)
class Plan:
    """What to change, by the names of settings; and what to tell."""

    values: Mapping[str, object]
    outcome: Reloaded

    def with_labels(self, path: str) -> "Plan":
        """The same, with what stands in the labels file at this path, which is new."""
        if LABELS_FILE in self.values:
            return self
        changed = (*self.outcome.changed, LABELS_FILE.upper())
        return Plan({**self.values, LABELS_FILE: path}, replace(self.outcome, changed=changed))


class Labels(Protocol):
    """Where the labels file in force is kept."""

    @property
    def in_force(self) -> LabelsFile:
        """What it said when it was last taken over."""
        ...

    def read(self, path: str) -> LabelsFile:
        """What it says now; a SettingsError says why it cannot be used."""
        ...

    def hand_over(self, labels: LabelsFile) -> None:
        """Have the next change of settings take over these."""
        ...


class Reloader:
    """Keeps what environment and `.env` said, so that it knows what is new in them."""

    def __init__(
        self,
        sources: Sources,
        given: Collection[str],
        change: Callable[[Mapping[str, object]], None],
        labels: Labels,
    ) -> None:
        """Starts from what was read at the start.

        Args:
            sources: What environment and `.env` said then.
            given: Settings from the command line or mitmproxy's own file.
            change: Changes settings, all or none; a SettingsError says why none.
            labels: Keeps the labels file.
        """
        self._sources = sources
        self._given = given
        self._change = change
        self._labels = labels

    @property
    def token(self) -> str:
        """The ADMIN_TOKEN in force; empty if there is none."""
        return self._sources.admin.admin_token.get_secret_value()

    def reload(self, in_force: RouterSettings) -> Reloaded:
        """Take over what environment and `.env` say now.

        Args:
            in_force: The settings in use.

        Raises:
            SettingsError: If that cannot be; then the old settings stay in force.
        """
        try:
            read = read_again(self._sources)
            planned = plan(self._sources, read, in_force, self._given)
            path = str(planned.values.get(LABELS_FILE, in_force.labels_file))
            labels = self._labels.read(path)
            if labels != self._labels.in_force:
                planned = planned.with_labels(path)
            if planned.values:
                self._labels.hand_over(labels)
                self._change(planned.values)
        except SettingsError as exc:
            logger.warning("Settings not reloaded, the old ones stay: %s", exc)
            raise
        self._sources = read
        logger.info("Settings reloaded: %s", planned.outcome.text())
        return planned.outcome


def read_sources() -> Sources:
    """What environment and `.env` say now.

    Raises:
        SettingsError: If they hold a bad value.
    """
    with _told_if_unreadable():
        return Sources(load(RouterSettings), load(AdminSettings), ENV_FILE.is_file())


def read_again(known: Sources) -> Sources:
    """The same while the proxy runs; stricter, for a default in place of a lost line does harm.

    Args:
        known: What they said before.

    Raises:
        SettingsError: If they hold a bad value, or lines or all of `.env` got lost.
    """
    with _told_if_unreadable():
        if ENV_FILE.is_file():
            # First of all: who reads the settings passes over such lines, and warns in its words.
            _refuse_lost_lines(ENV_FILE.read_text("utf-8", errors="replace"))
        elif known.has_file:
            msg = ".env is gone; put it back, or restart to run without it"
            raise SettingsError(msg)
    return read_sources()


def plan(
    known: Sources, read: Sources, in_force: RouterSettings, given: Collection[str] = ()
) -> Plan:
    """Work out what follows environment and `.env`, and what does not.

    Args:
        known: What they said when they were last taken over.
        read: What they say now.
        in_force: The settings in use.
        given: Settings from the command line or mitmproxy's own file.
    """
    before, after, now = (one.model_dump() for one in (known.settings, read.settings, in_force))
    values, kept = {}, []
    for field, value in after.items():
        if value in (before[field], now[field]):
            continue
        if field in given or now[field] != before[field]:
            kept.append(field.upper())
        else:
            values[field] = value
    changed = [field.upper() for field in values]
    if read.admin != known.admin:
        changed += [field.upper() for field in AdminSettings.model_fields]
    return Plan(values, Reloaded(tuple(changed), tuple(kept)))


@contextlib.contextmanager
def _told_if_unreadable() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        msg = f".env cannot be read: {exc.strerror}"
        raise SettingsError(msg) from exc


def _refuse_lost_lines(text: str) -> None:
    """Refuse an `.env` with lines that would be passed over, and so mean the default."""
    for binding in parse_stream(io.StringIO(text)):
        source = binding.original.string
        line = binding.original.line + source[: len(source) - len(source.lstrip())].count("\n")
        if binding.error:
            msg = f".env: line {line} cannot be read; write NAME=value"
            raise SettingsError(msg)
        name = (binding.key or "").lower()
        if binding.value is None and name in NAMES:
            msg = f".env: line {line}: {name.upper()} has no value; write {name.upper()}=value"
            raise SettingsError(msg)
