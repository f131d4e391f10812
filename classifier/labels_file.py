"""The labels file: labels, thresholds, examples and rules of an operator's own, as TOML.

It is good as a whole or not at all: one fault refuses it, with one line that names the place.
The proxy and the classifier read the same file; each uses its part of it.
"""

import hashlib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn, override

from pydantic import ValidationError

from classifier.configuration import SettingsError
from classifier.contracts import (
    LABELS,
    Label,
    RequestView,
    semantic_headers,
)
from classifier.labels_tables import (
    MAX_LABELS,
    ExampleTable,
    FileTable,
    LabelTable,
    RuleTable,
    faults_of,
)
from classifier.redaction import shown_url
from classifier.rules import (
    BodyFits,
    CompileFilter,
    Condition,
    FilterFits,
    Glob,
    HeaderFits,
    JsonFits,
    JsonScalar,
    LinearRegex,
    MethodIs,
    PathFits,
    PathMatches,
    Rule,
    as_body_text,
    json_test,
)

MAX_FILE_BYTES = 1_048_576


@dataclass(frozen=True, slots=True)
class LabelSpec:
    """What an operator says of a label.

    Attributes:
        description: For an LLM; "" if there is none.
        pool: Upstreams as in GENERAL_POOL, or the label whose pool it shares; "" for the three
            built-in ones, whose pools are settings.
        spill_pool: The label whose pool serves when its own cannot; "" for none.
        min_confidence: Below it an LLM is asked, 0 to 1; None: as for all labels.
        examples: Requests that have this label.
    """

    name: Label
    description: str = ""
    pool: str = ""
    spill_pool: str = ""
    min_confidence: float | None = None
    examples: tuple[RequestView, ...] = ()

    @property
    def shared_pool(self) -> Label | None:
        """The label whose pool it shares; None if it has one of its own."""
        return Label(self.pool) if self.pool and "://" not in self.pool else None


@dataclass(frozen=True, slots=True)
class LabelsFile:
    """All that a labels file says. Two are equal if they were read from the same text.

    Attributes:
        labels: By name: the three built-in ones, then those of the operator, as in the file.
        rules: In order; the first that fits decides.
        digest: Of the text; "" without a file.
    """

    labels: Mapping[Label, LabelSpec]
    rules: tuple[Rule, ...]
    digest: str

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelsFile) and self.digest == other.digest

    @override
    def __hash__(self) -> int:
        return hash(self.digest)

    def pool_of(self, label: Label) -> Label:
        """The label whose pool serves requests of this one: mostly its own."""
        return self.labels[label].shared_pool or label


NO_FILE = LabelsFile(MappingProxyType({name: LabelSpec(name) for name in LABELS}), (), "")
"""The three labels, and no rules."""


def read_labels_file(path: str, compile_filter: CompileFilter | None = None) -> LabelsFile:
    """Read a labels file; an empty path means that there is none.

    Args:
        path: Relative to the working directory.
        compile_filter: Makes predicates of flow filters; without it, rules with a filter fit
            nothing, and their filters are not checked.

    Raises:
        SettingsError: If anything in it cannot be used.
    """
    if not path:
        return NO_FILE
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "no such path can be"
        msg = f"LABELS_FILE: {path!r} cannot be read ({why}); write the path of a TOML file"
        raise SettingsError(msg) from exc
    if len(data) > MAX_FILE_BYTES:
        _refuse(f"{path!r} has over {MAX_FILE_BYTES} bytes")
    return parse_labels_file(data, compile_filter)


def parse_labels_file(data: bytes, compile_filter: CompileFilter | None = None) -> LabelsFile:
    """Read the text of a labels file; for arguments and errors see `read_labels_file`."""
    try:
        table = FileTable.model_validate(tomllib.loads(data.decode("utf-8")))
    except UnicodeDecodeError:
        _refuse("it is not UTF-8 text")
    except (tomllib.TOMLDecodeError, RecursionError) as exc:
        _refuse(f"it is not TOML: {str(exc) or 'nested too deeply'}")
    except ValidationError as exc:
        _refuse("; ".join(faults_of(exc)))
    labels = dict(NO_FILE.labels)
    for name, spec in table.labels.items():
        labels[Label(name)] = _spec(Label(name), spec)
    if len(labels) > MAX_LABELS:
        _refuse(f"labels: there are {len(labels)} with the built-in ones; {MAX_LABELS} may be")
    for label in labels.values():
        _check_pools(label, labels)
    rules = tuple(
        _rule(f"rules[{at}]", rule, labels, compile_filter) for at, rule in enumerate(table.rules)
    )
    _check_names(rules)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return LabelsFile(MappingProxyType(labels), rules, digest)


def _refuse(why: str) -> NoReturn:
    msg = f"LABELS_FILE: {why}"
    raise SettingsError(msg)


# From tables to values


def _spec(name: Label, table: LabelTable) -> LabelSpec:
    examples = tuple(_example(example) for example in table.examples)
    return LabelSpec(
        name=name,
        description=table.description.strip(),
        pool=table.pool.strip(),
        spill_pool=table.spill_pool.strip(),
        min_confidence=table.min_confidence,
        examples=examples,
    )


def _example(table: ExampleTable) -> RequestView:
    body = table.body.encode()
    content_type = table.content_type
    if content_type is None:
        content_type = "application/json" if table.body.lstrip()[:1] in {"{", "["} else ""
    return RequestView(
        method=(table.method or ("POST" if body else "GET")).upper(),
        path=table.path,
        content_type=content_type,
        headers=semantic_headers(table.headers.items()),
        body=body,
        body_bytes=len(body),
    )


def _check_pools(label: LabelSpec, labels: Mapping[Label, LabelSpec]) -> None:
    if label.name in LABELS:
        variable = label.name.upper().replace("-", "_")
        if label.pool:
            _refuse(f"labels.{label.name}.pool: set {variable}_POOL instead")
        if label.spill_pool:
            _refuse(f"labels.{label.name}.spill_pool: set {variable}_SPILL_POOL instead")
        return
    if not label.pool:
        _refuse(
            f"labels.{label.name}.pool: it is missing; write upstreams like"
            " http://localhost:9004, or the label whose pool it shares"
        )
    if "://" not in label.pool:
        _check_target(label, "pool", label.pool, labels)
        if label.spill_pool:
            _refuse(
                f"labels.{label.name}.spill_pool: it shares the pool of {label.pool},"
                " whose own spill pool counts; leave this one out"
            )
    elif label.spill_pool:
        _check_target(label, "spill_pool", label.spill_pool, labels)


def _check_target(label: LabelSpec, key: str, name: str, labels: Mapping[Label, LabelSpec]) -> None:
    place = f"labels.{label.name}.{key}"
    target = next((spec for spec in labels.values() if spec.name == name), None)
    if target is None:
        _refuse(f"{place}: unknown label {shown_url(name[:60])!r}; there are {', '.join(labels)}")
    if target is label:
        _refuse(f"{place}: {name!r} is the label itself; name another")
    if target.pool and "://" not in target.pool:
        _refuse(f"{place}: {name!r} has no pool of its own; name the label {target.pool!r}")


def _rule(
    place: str,
    table: RuleTable,
    labels: Mapping[Label, LabelSpec],
    compile_filter: CompileFilter | None,
) -> Rule:
    label = next((name for name in labels if name == table.label), None)
    if label is None:
        shown = shown_url(table.label[:60])
        _refuse(f"{place}: unknown label {shown!r}; there are {', '.join(labels)}")
    conditions: list[Condition] = []
    for key, conditions_of in _MAKERS.items():
        try:
            conditions += conditions_of(getattr(table, key), compile_filter)
        except ValueError as exc:
            _refuse(f"{place}.{key}: {exc}")
    if not conditions:
        _refuse(f"{place}: it has no condition; give one of {', '.join(_MAKERS)}")
    return Rule(table.name, label, tuple(conditions))


type _Maker = Callable[[Any, CompileFilter | None], Iterable[Condition]]


def _of_methods(methods: list[str] | None, _: object) -> Iterable[Condition]:
    return [MethodIs(frozenset(method.upper() for method in methods))] if methods else []


def _of_path(glob: str | None, _: object) -> Iterable[Condition]:
    if glob is None:
        return []
    if "?" in glob:
        msg = "a path is compared without its query; leave out ? and what follows"
        raise ValueError(msg)
    return [PathFits(Glob(glob))]


def _of_path_regex(regex: str | None, _: object) -> Iterable[Condition]:
    return [PathMatches(LinearRegex(regex))] if regex is not None else []


def _of_headers(headers: Mapping[str, str], _: object) -> Iterable[Condition]:
    return [HeaderFits(name.lower(), Glob(glob)) for name, glob in headers.items()]


def _of_body(glob: str | None, _: object) -> Iterable[Condition]:
    return [BodyFits(Glob(as_body_text(glob)))] if glob is not None else []


def _of_json(tests: Mapping[str, JsonScalar], _: object) -> Iterable[Condition]:
    return [JsonFits(tuple(path.split(".")), json_test(value)) for path, value in tests.items()]


def _of_filter(text: str | None, compile_filter: CompileFilter | None) -> Iterable[Condition]:
    if text is None:
        return []
    return [FilterFits(text, compile_filter(text) if compile_filter else None)]


# The cheap ones first: conditions are asked in this order.
_MAKERS: Mapping[str, _Maker] = {
    "method": _of_methods,
    "path": _of_path,
    "path_regex": _of_path_regex,
    "header": _of_headers,
    "body": _of_body,
    "body_json": _of_json,
    "filter": _of_filter,
}


def _check_names(rules: Iterable[Rule]) -> None:
    """Two rules of one name could not be told apart in the feed."""
    seen: set[str] = set()
    for at, rule in enumerate(rules):
        if rule.name in seen:
            _refuse(f"rules[{at}].name: {rule.name!r} is the name of an earlier rule already")
        seen.add(rule.name)
