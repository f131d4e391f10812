"""Features in plain words, for the one sentence that tells an operator why.

Only words of this file are ever said: nothing that stood in a payload.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

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
_PHRASES: Final = {
    "q=point": "reads one row by key",
    "q=const": "touches no stored data",
    "q=agg-all": "aggregates without a filter",
    "q=agg-filtered": "aggregates over a filter",
    "q=agg-key": "aggregates for one key",
    "q=scan-all": "scans without a filter or limit",
    "q=scan-text": "matches text anywhere",
    "q=filtered": "filters without a limit",
    "q=bounded": "reads a bounded number of rows",
    "q=bounded-large": "reads very many rows",
    "q=join": "joins without a limit",
    "q=join-bounded": "joins with a limit",
    "q=join-key": "joins from one key",
    "q=write": "writes rows",
    "q=write-all": "writes a whole table",
    "q=copy": "copies a whole result",
    "q=bulk": "bulk work on stored data",
    "q=meta": "asks for metadata",
    "q=system": "reads system tables",
    "q=ddl": "changes a definition",
    "q=traverse": "walks a graph",
    "q=heavy": "heavy computation",
    "q.group": "groups rows",
    "q.window": "window functions",
    "q.nowhere": "no filter",
    "q.nolimit": "no limit",
    "q.key": "a condition on a key",
    "q.join": "joins",
    "q.regex": "a regular expression",
    "gql=point": "one object by key",
    "gql=keyed-flat": "objects by key",
    "gql=singleton": "a field without arguments",
    "gql=mutation": "a mutation",
    "gql=aggregate": "aggregates",
    "gql=no-limit": "lists without a limit",
    "gql=introspection": "introspection",
    "gql=keyed-lists": "one object with its lists",
    "ai=chat": "a conversation for a language model",
    "ai=prompt": "input for a model",
    "ai=prompt+model": "input for a named model",
    "ai=tuning": "sampling settings",
    "ai=prompt+model+tuning": "input for a named model",
    "ai=prompt+tuning": "input for a model",
    "args=only-ids": "only identifiers as arguments",
    "arg=limit": "a page size",
    "arg=page": "paging",
    "arg=filter": "a filter",
    "doc=agg": "aggregations in the document",
    "doc=heavy": "costly operators",
    "doc=knn": "vector search",
    "format=export": "an export format",
    "flag=callback": "a callback for later",
    "flag=destination": "a place to write the result",
    "flag=inputlocation": "a file to work on",
    "qs=none": "no query string",
    "body=none": "no body",
    "body=multipart": "files in parts",
    "lines.log": "many documents in one body",
    "shape=id": "one object by its path",
    "shape=list": "a collection",
    "shape=action": "an action",
    "shape=sub-action": "an action on one object",
    "shape=sub-list": "a collection of one object",
    "shape=asset": "a static asset",
    "shape=root": "the root",
    "rest.verb=get": "a plain read",
    "rest.verb=list": "a list",
    "rest.verb=create": "a plain write",
    "rest.verb=update": "an update",
    "rest.verb=delete": "a deletion",
    "rest.verb=head": "only headers",
    "q=agg-key-recent": "aggregates for one key over a short time",
    "q=agg-recent": "aggregates over a short time",
    "q=agg-wide": "aggregates with windows or text matching",
    "q=scan-large": "reads very many rows",
    "q=keyed-page": "reads the rows of one key",
    "q=filtered-one": "reads rows equal to one value",
    "q=filtered-range": "reads a range of time",
    "q=dry": "only examines a query",
    "q=stored": "only stores a query",
    "q=define": "only defines something",
    "q=index": "builds an index",
    "q=write-range": "writes a range of rows",
    "q=prom-sumrate": "rates summed up",
    "q=prom-rate": "a rate",
    "q=prom-sum": "a sum over series",
    "q=prom-long": "a long window",
    "q=prom-one": "one series",
    "q=prom-all": "every series",
    "g=point": "one object by key",
    "g=single": "fields without arguments",
    "g=aggregate": "aggregates",
    "g=introspection": "introspection",
    "gql=everything": "an empty filter",
    "ai=turns": "turns of a conversation",
    "d=agg": "aggregations in the document",
    "d=agg-range": "aggregations over a range",
    "d=page": "one page of hits",
    "d=keyed": "a document by key",
    "d=all": "matches everything",
    "d=all-large": "matches everything",
    "d=heavy": "costly operators",
    "d=knn": "vector search",
    "d=filtered": "a filter",
    "d=large": "very many hits",
    "limit=huge": "a huge page size",
    "limit=k": "a very large page size",
    "limit=few": "a small page size",
    "limit=page": "an ordinary page size",
    "span=year": "a range of years",
    "span=quarter": "a range of months",
    "span=hours": "a range of hours",
    "val=everything": "everything as a value",
    "format=csv": "an export format",
    "depth=infinity": "unlimited depth",
    "span.log": "a time range",
    "rpc.batch.log": "a batch of calls",
}
_GROUPS: Final = {
    "get": "reading one",
    "describe": "a description",
    "list": "a list",
    "search": "a search",
    "scan": "a full scan",
    "count": "a count",
    "exists": "a check",
    "create": "creating",
    "update": "updating",
    "delete": "deleting",
    "upsert": "saving",
    "auth": "authentication",
    "health": "health",
    "version": "a version",
    "meta": "settings or metadata",
    "self": "the own profile",
    "agg": "aggregation",
    "report": "reporting",
    "export": "an export",
    "import": "an import",
    "bulk": "bulk work",
    "job": "a job",
    "start": "starting work",
    "stop": "stopping work",
    "progress": "a status",
    "train": "training",
    "infer": "inference",
    "generate": "generation",
    "embed": "embedding",
    "media": "media",
    "convert": "conversion",
    "optimize": "optimisation",
    "graph": "a graph",
    "geo": "geography",
    "maintain": "maintenance",
    "trace": "tracing",
    "logs": "events",
    "send": "sending",
    "pay": "payments",
    "latest": "the current state",
    "tree": "a whole tree",
    "tokenize": "counting tokens",
    "price": "a price",
    "block": "blocks or transactions",
    "user": "accounts",
    "thing": "an object",
}
_PLACES: Final = ("op", "op1", "opn", "verb", "last", "coll")
_INTENTS: Final = ("do", "rpc.do", "rest.do", "mutation.do", "query.do")
_MAX_PHRASES: Final = 3
_MAX_LOOKED_AT: Final = 40
MIN_WEIGHT: Final = 0.05
"""What weighs less is not worth telling."""


def explain(features: Mapping[str, float], weightiest: Sequence[str]) -> str:
    """One short sentence: the protocol and what weighed most.

    Args:
        features: Those of the request.
        weightiest: The names of those that weigh at least `MIN_WEIGHT`, heaviest first.
    """
    protocol = next(filter(features.__contains__, _SUBJECTS), "")
    subject = _SUBJECTS.get(protocol, "a request")
    said: list[str] = []
    for name in weightiest[:_MAX_LOOKED_AT]:
        phrase = _phrase(name)
        if phrase and phrase not in said:
            said.append(phrase)
        if len(said) == _MAX_PHRASES:
            break
    subject = subject[0].upper() + subject[1:]
    return f"{subject}: {', '.join(said)}" if said else f"{subject}, nothing that stands out"


@lru_cache(maxsize=4096)
def _phrase(name: str) -> str:
    if name in _PHRASES:
        return _PHRASES[name]
    place, _, group = name.rpartition("=")
    if place in _PLACES and group in _GROUPS:
        return f"named for {_GROUPS[group]}"
    if place in _INTENTS:
        verb, _, head = group.partition(":")
        return f"named for {_GROUPS[verb]}" if verb in _GROUPS and head else ""
    if place == "g":
        return _graph_phrase(group)
    return ""


def _graph_phrase(verdict: str) -> str:
    """`keyed-open2` and its like: how many lists deep, and whether they are bounded."""
    depth = verdict[-1:]
    if not depth.isdigit():
        return ""
    bounds = "without a limit" if "open" in verdict else "with a limit"
    return f"lists {_DEPTHS.get(depth, 'several')} deep {bounds}"


_DEPTHS: Final = {"1": "one", "2": "two", "3": "three or more"}
