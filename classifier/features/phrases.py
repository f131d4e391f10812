"""Features in plain words and as reason codes, to tell an operator and his programs why.

Only words of this file are ever said: nothing that stood in a payload.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from classifier.contracts import Label
from classifier.contracts import ReasonCode as Code


class Told(NamedTuple):
    """A feature as it is told: in words, and as one of a closed set of codes.

    Attributes:
        phrase: "" if it is too indirect to be told of.
        telling: Whether its code wins over that of a heavier feature that is not: method and shape
            of a path are the same for a health check and for a point lookup.
    """

    phrase: str
    code: Code
    telling: bool = True


_SUBJECTS: Final = {
    "proto=graphql": "GraphQL",
    "proto=graphql-opaque": "GraphQL without its document",
    "proto=sql": "SQL",
    "proto=ql": "a query language",
    "proto=metrics": "a metrics query",
    "proto=jsonrpc": "JSON-RPC",
    "proto=amz": "an AWS action",
    "proto=soap": "an XML call",
    "proto=action": "a named action",
    "proto=grpc": "an RPC method",
    "proto=command": "a command",
    "proto=rest": "REST",
}
_PHRASES: Final[Mapping[str, Told]] = {
    "q=point": Told("reads one row by key", Code.LOOKUP),
    "q=const": Told("touches no stored data", Code.METADATA),
    "q=agg-all": Told("aggregates without a filter", Code.AGGREGATION),
    "q=agg-filtered": Told("aggregates over a filter", Code.AGGREGATION),
    "q=agg-key": Told("aggregates for one key", Code.AGGREGATION),
    "q=scan-all": Told("scans without a filter or limit", Code.SCAN),
    "q=scan-text": Told("matches text anywhere", Code.SCAN),
    "q=filtered": Told("filters without a limit", Code.QUERY),
    "q=bounded": Told("reads a bounded number of rows", Code.QUERY),
    "q=bounded-large": Told("reads very many rows", Code.SCAN),
    "q=join": Told("joins without a limit", Code.JOIN),
    "q=join-bounded": Told("joins with a limit", Code.JOIN),
    "q=join-key": Told("joins from one key", Code.JOIN),
    "q=write": Told("writes rows", Code.WRITE),
    "q=write-all": Told("writes a whole table", Code.BULK),
    "q=copy": Told("copies a whole result", Code.EXPORT),
    "q=bulk": Told("bulk work on stored data", Code.BULK),
    "q=meta": Told("asks for metadata", Code.METADATA),
    "q=system": Told("reads system tables", Code.METADATA),
    "q=ddl": Told("changes a definition", Code.WRITE),
    "q=traverse": Told("walks a graph", Code.JOIN),
    "q=heavy": Told("heavy computation", Code.QUERY),
    "q.group": Told("groups rows", Code.AGGREGATION),
    "q.window": Told("window functions", Code.AGGREGATION),
    "q.nowhere": Told("no filter", Code.SCAN),
    "q.nolimit": Told("no limit", Code.SCAN),
    "q.key": Told("a condition on a key", Code.LOOKUP),
    "q.join": Told("joins", Code.JOIN),
    "q.regex": Told("a regular expression", Code.SEARCH),
    "gql=point": Told("one object by key", Code.LOOKUP),
    "gql=keyed-flat": Told("objects by key", Code.LOOKUP),
    "gql=singleton": Told("a field without arguments", Code.FIELDS),
    "gql=mutation": Told("a mutation", Code.WRITE),
    "gql=aggregate": Told("aggregates", Code.AGGREGATION),
    "gql=no-limit": Told("lists without a limit", Code.SCAN),
    "gql=introspection": Told("introspection", Code.METADATA),
    "gql=keyed-lists": Told("one object with its lists", Code.NESTING),
    "ai=chat": Told("a conversation for a language model", Code.INFERENCE),
    "ai=prompt": Told("input for a model", Code.INFERENCE),
    "ai=prompt+model": Told("input for a named model", Code.INFERENCE),
    "ai=tuning": Told("sampling settings", Code.INFERENCE),
    "ai=prompt+model+tuning": Told("input for a named model", Code.INFERENCE),
    "ai=prompt+tuning": Told("input for a model", Code.INFERENCE),
    "args=only-ids": Told("only identifiers as arguments", Code.LOOKUP, telling=False),
    "arg=limit": Told("a page size", Code.LIST),
    "arg=page": Told("paging", Code.LIST),
    "arg=filter": Told("a filter", Code.SEARCH, telling=False),
    "doc=agg": Told("aggregations in the document", Code.AGGREGATION),
    "doc=heavy": Told("costly operators", Code.QUERY),
    "doc=knn": Told("vector search", Code.SEARCH),
    "format=export": Told("an export format", Code.EXPORT),
    "flag=callback": Told("a callback for later", Code.JOB),
    "flag=destination": Told("a place to write the result", Code.JOB),
    "flag=inputlocation": Told("a file to work on", Code.JOB),
    "qs=none": Told("no query string", Code.OTHER, telling=False),
    "body=none": Told("no body", Code.OTHER, telling=False),
    "body=multipart": Told("files in parts", Code.MEDIA),
    "lines.log": Told("many documents in one body", Code.BULK),
    "shape=id": Told("one object by its path", Code.LOOKUP, telling=False),
    "shape=list": Told("a collection", Code.LIST, telling=False),
    "shape=action": Told("an action", Code.OTHER, telling=False),
    "shape=sub-action": Told("an action on one object", Code.OTHER, telling=False),
    "shape=sub-list": Told("a collection of one object", Code.LIST, telling=False),
    "shape=asset": Told("a static asset", Code.METADATA, telling=False),
    "shape=root": Told("the root", Code.METADATA, telling=False),
    "rest.verb=get": Told("a plain read", Code.LOOKUP, telling=False),
    "rest.verb=list": Told("a list", Code.LIST, telling=False),
    "rest.verb=create": Told("a plain write", Code.WRITE, telling=False),
    "rest.verb=update": Told("an update", Code.WRITE, telling=False),
    "rest.verb=delete": Told("a deletion", Code.WRITE, telling=False),
    "rest.verb=head": Told("only headers", Code.METADATA, telling=False),
    "q=agg-key-recent": Told("aggregates for one key over a short time", Code.AGGREGATION),
    "q=agg-recent": Told("aggregates over a short time", Code.AGGREGATION),
    "q=agg-wide": Told("aggregates with windows or text matching", Code.AGGREGATION),
    "q=scan-large": Told("reads very many rows", Code.SCAN),
    "q=keyed-page": Told("reads the rows of one key", Code.LIST),
    "q=filtered-one": Told("reads rows equal to one value", Code.QUERY),
    "q=filtered-range": Told("reads a range of time", Code.RANGE),
    "q=dry": Told("only examines a query", Code.METADATA),
    "q=stored": Told("only stores a query", Code.WRITE),
    "q=define": Told("only defines something", Code.WRITE),
    "q=index": Told("builds an index", Code.JOB),
    "q=write-range": Told("writes a range of rows", Code.BULK),
    "q=prom-sumrate": Told("rates summed up", Code.AGGREGATION),
    "q=prom-rate": Told("a rate", Code.RANGE),
    "q=prom-sum": Told("a sum over series", Code.AGGREGATION),
    "q=prom-long": Told("a long window", Code.RANGE),
    "q=prom-one": Told("one series", Code.LOOKUP),
    "q=prom-all": Told("every series", Code.SCAN),
    "g=point": Told("one object by key", Code.LOOKUP),
    "g=single": Told("fields without arguments", Code.FIELDS),
    "g=aggregate": Told("aggregates", Code.AGGREGATION),
    "g=introspection": Told("introspection", Code.METADATA),
    "gql=everything": Told("an empty filter", Code.SCAN),
    "ai=turns": Told("turns of a conversation", Code.INFERENCE),
    "d=agg": Told("aggregations in the document", Code.AGGREGATION),
    "d=agg-range": Told("aggregations over a range", Code.AGGREGATION),
    "d=page": Told("one page of hits", Code.SEARCH),
    "d=keyed": Told("a document by key", Code.LOOKUP),
    "d=all": Told("matches everything", Code.SCAN),
    "d=all-large": Told("matches everything", Code.SCAN),
    "d=heavy": Told("costly operators", Code.QUERY),
    "d=knn": Told("vector search", Code.SEARCH),
    "d=filtered": Told("a filter", Code.SEARCH),
    "d=large": Told("very many hits", Code.SCAN),
    "limit=huge": Told("a huge page size", Code.SCAN),
    "limit=k": Told("a very large page size", Code.SCAN),
    "limit=few": Told("a small page size", Code.LIST),
    "limit=page": Told("an ordinary page size", Code.LIST),
    "span=year": Told("a range of years", Code.RANGE),
    "span=quarter": Told("a range of months", Code.RANGE),
    "span=hours": Told("a range of hours", Code.RANGE),
    "val=everything": Told("everything as a value", Code.SCAN),
    "format=csv": Told("an export format", Code.EXPORT),
    "depth=infinity": Told("unlimited depth", Code.NESTING),
    "span.log": Told("a time range", Code.RANGE),
    "rpc.batch.log": Told("a batch of calls", Code.BULK),
    "q.agg": Told("aggregates", Code.AGGREGATION),
    "gql.cost.log": Told("the breadth and depth of its lists", Code.NESTING),
    "gql.listdepth": Told("lists within lists", Code.NESTING),
    "gql=filter": Told("a filter", Code.SEARCH),
    "gql=keyed": Told("one object by key", Code.LOOKUP),
    "limit.log": Told("its page size", Code.OTHER),
    "span=day": Told("a range of days", Code.RANGE),
    "list.log": Told("a list in the body", Code.OTHER),
    "objects.log": Told("objects in the body", Code.OTHER),
    "val=aggregate-call": Told("an aggregation as a value", Code.AGGREGATION),
}
_GROUPS: Final[Mapping[str, Told]] = {
    "get": Told("reading one", Code.LOOKUP),
    "describe": Told("a description", Code.METADATA),
    "list": Told("a list", Code.LIST),
    "search": Told("a search", Code.SEARCH),
    "scan": Told("a full scan", Code.SCAN),
    "count": Told("a count", Code.AGGREGATION),
    "exists": Told("a check", Code.LOOKUP),
    "create": Told("creating", Code.WRITE),
    "update": Told("updating", Code.WRITE),
    "delete": Told("deleting", Code.WRITE),
    "upsert": Told("saving", Code.WRITE),
    "auth": Told("authentication", Code.AUTH),
    "health": Told("health", Code.HEALTH),
    "version": Told("a version", Code.METADATA),
    "meta": Told("settings or metadata", Code.METADATA),
    "self": Told("the own profile", Code.LOOKUP),
    "agg": Told("aggregation", Code.AGGREGATION),
    "report": Told("reporting", Code.AGGREGATION),
    "export": Told("an export", Code.EXPORT),
    "import": Told("an import", Code.BULK),
    "bulk": Told("bulk work", Code.BULK),
    "job": Told("a job", Code.JOB),
    "start": Told("starting work", Code.JOB),
    "stop": Told("stopping work", Code.WRITE),
    "progress": Told("a status", Code.STATUS),
    "train": Told("training", Code.JOB),
    "infer": Told("inference", Code.INFERENCE),
    "generate": Told("generation", Code.INFERENCE),
    "embed": Told("embedding", Code.INFERENCE),
    "media": Told("media", Code.MEDIA),
    "convert": Told("conversion", Code.MEDIA),
    "optimize": Told("optimisation", Code.JOB),
    "graph": Told("a graph", Code.NESTING),
    "geo": Told("geography", Code.OTHER),
    "maintain": Told("maintenance", Code.JOB),
    "trace": Told("tracing", Code.SCAN),
    "logs": Told("events", Code.LIST),
    "send": Told("sending", Code.WRITE),
    "pay": Told("payments", Code.WRITE),
    "latest": Told("the current state", Code.STATUS),
    "tree": Told("a whole tree", Code.NESTING),
    "tokenize": Told("counting tokens", Code.OTHER),
    "price": Told("a price", Code.LOOKUP),
    "block": Told("blocks or transactions", Code.LOOKUP),
    "user": Told("accounts", Code.OTHER),
    "thing": Told("an object", Code.OTHER),
}
_CONTRADICTIONS: Final[Mapping[str, frozenset[Code]]] = {
    Label.FAST_PATH: frozenset((
        Code.AGGREGATION, Code.BULK, Code.EXPORT, Code.INFERENCE, Code.JOB, Code.JOIN, Code.MEDIA,
        Code.NESTING, Code.RANGE, Code.SCAN, Code.WRITE,
    )),
    Label.GENERAL: frozenset((Code.HEALTH, Code.INFERENCE)),
    Label.HIGH_COMPUTE: frozenset((
        Code.AUTH, Code.FIELDS, Code.HEALTH, Code.LOOKUP, Code.METADATA, Code.STATUS,
    )),
}  # fmt: skip
"""What may weigh a little for a label by chance, but is no reason for it."""
_PLACES: Final = ("op", "op1", "opn", "verb", "last", "coll")
_UNSPOKEN: Final = ("do.verb", "do.head", "k", "k1", "kn", "path", "before", "val")
"""Where a word of a group is too indirect to be told of, but still says what it is about."""
_QUERIES: Final = frozenset(("proto=sql", "proto=ql", "proto=metrics"))
_INTENTS: Final = ("do", "rpc.do", "rest.do", "mutation.do", "query.do")
_MAX_PHRASES: Final = 3
_MAX_LOOKED_AT: Final = 40
MIN_WEIGHT: Final = 0.05
"""What weighs less is not worth telling."""


class Explanation(NamedTuple):
    """Why a request has its label."""

    sentence: str
    code: Code


def explain(features: Mapping[str, float], weightiest: Sequence[str], label: Label) -> Explanation:
    """One short sentence, the protocol and what weighed most; and a code.

    The code is that of the weightiest feature that has a telling one, or else of the weightiest
    that has any; `other` if none has, and `unclear` if there is nothing to tell.

    Args:
        features: Those of the request.
        weightiest: The names of those that weigh at least `MIN_WEIGHT`, heaviest first.
        label: What they weigh for.
    """
    protocol = next(filter(features.__contains__, _SUBJECTS), "")
    said: list[str] = []
    strong: list[Code] = []
    weak: list[Code] = []
    contradictions = _CONTRADICTIONS.get(label, frozenset())
    for phrase, code, telling in filter(None, map(_told, weightiest[:_MAX_LOOKED_AT])):
        if code in contradictions:
            continue
        (strong if telling else weak).append(code)
        if len(said) < _MAX_PHRASES and phrase and phrase not in said:
            said.append(phrase)
    if protocol in _QUERIES:
        weak.append(Code.QUERY)
    if label == Label.FAST_PATH and (named := _told_by_gist(features)) is not None:
        strong.insert(0, named)
    sentence = _sentence(_SUBJECTS.get(protocol, "a request"), said)
    return Explanation(sentence, _first_clear([*strong, *weak]))


def _told_by_gist(features: Mapping[str, float]) -> Code | None:
    """What a gist stands for whose weight lies on many features, none of which says it."""
    if "g=single" in features:
        return Code.FIELDS
    return Code.STATUS if not _STATUS_GISTS.isdisjoint(features) else None


_STATUS_GISTS: Final = frozenset(("gist=GET:status", "gist=GET:sub-status"))


def _first_clear(codes: list[Code]) -> Code:
    vague = Code.OTHER if codes else Code.UNCLEAR
    return next((code for code in codes if code is not Code.OTHER), vague)


def _sentence(subject: str, said: list[str]) -> str:
    subject = subject[0].upper() + subject[1:]
    return f"{subject}: {', '.join(said)}" if said else f"{subject}, nothing that stands out"


@lru_cache(maxsize=4096)
def _told(name: str) -> Told | None:
    if name in _PHRASES:
        return _PHRASES[name]
    place, _, group = name.rpartition("=")
    if place in _PLACES:
        return _named_for(group)
    if place in _INTENTS:
        verb, _, head = group.partition(":")
        return _named_for(verb) if head else None
    if place in _UNSPOKEN and group in _GROUPS:
        return Told("", _GROUPS[group].code, telling=False)
    return _graph_told(group) if place == "g" else None


def _named_for(group: str) -> Told | None:
    told = _GROUPS.get(group)
    return None if told is None else Told(f"named for {told.phrase}", told.code)


def _graph_told(verdict: str) -> Told | None:
    """`keyed-open2` and its like: how many lists deep, and whether they are bounded."""
    depth = verdict[-1:]
    if not depth.isdigit():
        return None
    bounds = "without a limit" if "open" in verdict else "with a limit"
    code = Code.LIST if depth in "01" else Code.NESTING
    return Told(f"lists {_DEPTHS.get(depth, 'several')} deep {bounds}", code)


_DEPTHS: Final = {"1": "one", "2": "two", "3": "three or more"}
