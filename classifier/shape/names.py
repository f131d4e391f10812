"""Names in a shape, and what a name says of the value beneath it.

A name is what an API calls its things: words of a path, fields, parameters, identifiers. Those
made of the lexicon's words stand in a shape as they are; of all others a digest does, so no text
of a stranger is in it. Digits in a name are one digit: `line1` and `line27` are one name.
"""

import hashlib
import re
from enum import IntEnum
from functools import lru_cache
from typing import Final, NamedTuple

from classifier.features.lexicon import LITERALS
from classifier.features.nouns import NOUNS
from classifier.features.roles import role_of
from classifier.features.vocabulary import vocabulary
from classifier.features.words import groups, split_name

_MAX_NAME: Final = 64
_DIGITS: Final = re.compile(r"\d+")
_NAME: Final = re.compile(r"[\w$@.:/ \[\]-]*+", re.ASCII)
_ID_NAME: Final = re.compile(r"\d+$|[0-9a-fA-F][0-9a-fA-F-]{7,}+$|.*@.*\.")
_NOT_LETTERS: Final = re.compile(r"[^a-z0-9]")

# Beside the lexicon: words that are no text of anybody's, wherever they stand.
_PLAIN: Final = LITERALS | vocabulary("""
    yes no on off unlimited all everyone everything todos todas alle tous tutti all_time alltime
    true false null none asc desc json xml yaml html csv tsv xlsx xls pdf zip parquet excel gz tar
    jsonl ndjson avro eq ne neq gt gte lt lte like ilike is not fts plfts phfts wfts cs cd ov
    imatch and or nand day days hour hours minute minutes second seconds month months quarter
    quarters years earliest pending finalized safe latest now today yesterday infinity exact
    planned estimated sum avg min max distinct stddev select insert update delete where order
    group having join left right inner outer limit offset fetch top into values set case when then
    else end query mutation subscription fragment id ids url uri uuid int float string boolean
    text user system assistant tool function role content application multipart vnd form data
    urlencoded octet stream plain charset utf www params args arguments jsonrpc variables title
    username password first last name surname firstname lastname subject city phone description
    currency caption greeting nickname
""")


class Numbers(IntEnum):
    """How closely a number is told."""

    DECADE = 0
    FINE = 1
    ID = 2


class Texts(IntEnum):
    """What a text may be."""

    PLAIN = 0
    QUERY = 1
    """Likely a query in some language."""
    MAYBE = 2
    """A query now and then, text for people else."""
    OPERATION = 3
    """The name of what is to be done."""
    ALWAYS = 5
    """A query, whatever it reads like: if only the name of a metric."""
    MODEL = 4
    """The name of a model that shall work: it says how much work that is."""


class Name(NamedTuple):
    """A name as it stands in a shape.

    Attributes:
        shown: Itself, or a digest.
        numbers: How closely a number beneath it is told.
        texts: What a text beneath it may be.
        bounds: Whether what stands beneath it begins or ends a range.
        keyed: Whether a text beneath it is a key, or a list of keys.
        silent: Whether it says nothing of the value beneath it.
        item: Whether it is that of a list, for the items in it.
    """

    shown: str
    numbers: Numbers
    texts: Texts
    bounds: bool
    keyed: bool = False
    silent: bool = True
    item: bool = False


def is_plain(word: str) -> bool:
    """Whether a lower-case word is one of the lexicon, not of a stranger."""
    return word in _PLAIN or word in NOUNS or bool(groups(word))


@lru_cache(maxsize=16_384)
def shown(text: str) -> str:
    """A name as it may stand in a shape."""
    if len(text) > _MAX_NAME:
        return "~long"
    plain = _DIGITS.sub("0", text)
    if _NAME.fullmatch(plain) and all(is_plain(word) or word == "0" for word in split_name(plain)):
        return plain
    return digest(plain)


@lru_cache(maxsize=4_096)
def digest(text: str) -> str:
    """What stands for a name that must not be shown."""
    raw = text.encode("utf-8", "surrogatepass")
    return f"~{hashlib.blake2b(raw, digest_size=8).hexdigest()}"


def name_of(text: str) -> Name:
    """A field, parameter or identifier; one that looks like an id is no name."""
    # Cut before the cache, so that long names of strangers do not fill the memory.
    return _name(text) if len(text) <= _MAX_NAME else _LONG


_LONG: Final = Name("~long", Numbers.DECADE, Texts.PLAIN, bounds=False)


@lru_cache(maxsize=16_384)
def _name(text: str) -> Name:
    if _ID_NAME.match(text):
        return Name("#", Numbers.DECADE, Texts.PLAIN, bounds=False)
    inner = [piece for piece in re.split(r"[\[\]]+", text) if piece and not piece.isdigit()]
    joined = _NOT_LETTERS.sub("", (inner[-1] if inner else "").lower())
    words = split_name(inner[-1]) if inner else ()
    role = role_of(text)
    return Name(
        shown(text),
        _numbers(joined, words, role),
        _texts(joined, role),
        role == "time" or _bounds(joined),
        role == "key",
        not role,
    )


def _numbers(joined: str, words: tuple[str, ...], role: str) -> Numbers:
    if joined in _SCALES or role in ("limit", "count", "all"):
        return Numbers.FINE
    if joined in _IDS or joined.endswith(_ID_ENDS):
        return Numbers.ID
    return Numbers.DECADE if _SCALE_WORDS.isdisjoint(words) else Numbers.FINE


def _texts(joined: str, role: str) -> Texts:
    found = next((texts for texts, names in _TEXTS.items() if joined in names), Texts.PLAIN)
    queried = found is Texts.PLAIN and role in ("search", "filter", "group")
    return Texts.QUERY if queried else found


def _bounds(joined: str) -> bool:
    return (
        joined in _BOUNDS or joined.startswith(_BOUND_BEGINNINGS) or joined.endswith(_BOUND_ENDINGS)
    )


_IDS: Final = vocabulary("id ids key keys uuid guid no pk oid code ref sku phone zip")
_ID_ENDS: Final = ("id", "ids", "key", "uuid", "guid", "code", "number", "pk", "ref", "zip")
_SCALES: Final = vocabulary("""
    limit size perpage pagesize first last take top maxresults n rows hitsperpage maxitems
    maxkeys num topk k pagelength batchsize nresults numresults recordlimit rpp maxcount
    itemsperpage resultsperpage pagelimit limitrows maxrows rowlimit fetchsize resultlimit
    numitems maxrecords maxresultcount recordcount pagecount resultcount count limitresults
    records iterations samples runs paths simulations points depth maxdepth hops epochs nepochs
    steps scenarios trials maxpages expectedrows times population generations numsamples
    nsimulations draws duration durationminutes pages maxhops maxlevel level levels rounds
    width height fps maxtokens horizon bootstrap repetitions seconds days history max
    querylimit
""")
_SCALE_WORDS: Final = vocabulary("""
    limit size count max maximum top depth batch rows pages samples steps step hops tokens
    epochs iterations width height duration days hours weeks months years minutes seconds take
    records items results interval window range lookback horizon concurrency parallelism
    workers threads shards replicas partitions beams best completions images choices candidates
    resolution zoom radius distance level levels per last second minute hour day week month quarter
    year
""")
_BOUNDS: Final = vocabulary("""
    from start since starttime startdate begin fromdate datefrom startat timestart gte gt
    after begindate createdafter createdgte min startdatetime fromtime starttimestamp
    periodstart validfrom von earliest earliesttime to end until endtime enddate todate dateto
    finish endat timeend lte lt before createdbefore max enddatetime totime endtimestamp
    periodend validto bis latest latesttime last range period window timerange lookback duration
    days daterange interval timeframe history span step dates date time
""")
_BOUND_BEGINNINGS: Final = (
    "start", "from", "since", "begin", "after", "gte", "min", "end", "until", "before", "lte",
    "max", "toblock", "toslot", "toheight", "timefrom", "timeto",
)  # fmt: skip
_BOUND_ENDINGS: Final = (
    "start", "from", "since", "begin", "after", "gte", "min", "startdate", "starttime", "end",
    "until", "before", "lte", "max", "enddate", "endtime", "dateto", "timefrom", "timeto",
)  # fmt: skip
_QUERIES: Final = vocabulary("""
    query q sql statement stmt statements expr expression cypher gremlin querystring querytext
    sqlstatement kql esql flux aql dbquery queries sqlquery oql soql querydefinition sqltext
    rawquery rawsql userquery jql mdx dax commands promql logql target n1ql match filter
    filters where selector predicate fq cql filterexpression filterby searchcriteria aggregate
    apply having criteria gql document ksql statementtext csl yql nrql hql
    traversal
""")
_ALWAYS: Final = vocabulary("expr promql sql statement stmt sqltext")
_MODELS: Final = vocabulary("model modelid modelname engine engineid modelkey basemodel")
_MAYBE_QUERIES: Final = vocabulary("text body code search script content command data")
_OPERATIONS: Final = vocabulary("""
    action op operation method cmd function do request act func mode comp restype verb rpc
    wsfunction task fn procedure querytype requesttype operationname messagetype msgtype call
    jobtype commandname eventtype intent process tasktype actiontype requete operacion azione
    aktion vorgang befehl commande operacao accion acao operazione handler svcmethod service t
    type kind event topic msg job
""")
_TEXTS: Final = {
    Texts.ALWAYS: _ALWAYS,
    Texts.QUERY: _QUERIES,
    Texts.MAYBE: _MAYBE_QUERIES,
    Texts.MODEL: _MODELS,
    Texts.OPERATION: _OPERATIONS,
}
