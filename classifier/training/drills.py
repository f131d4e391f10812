"""The label policy spelled out: small invented requests, one policy sentence each.

Real APIs show the plain cases too seldom to outweigh chance: that an id at the end of a GET is a
point lookup, that asking about an export is not exporting. These rows say so for many nouns, in
the styles of several protocols. They weigh less than real rows and are never tested on.
"""

# A statement or a document reads best on one line.
# ruff: noqa: E501

import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote_plus

from classifier.contracts import Label, RequestView, semantic_headers
from classifier.training.rows import Row

FILE: Final = "drills"
_FAST, _GENERAL, _HIGH = Label.FAST_PATH, Label.GENERAL, Label.HIGH_COMPUTE


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_NOUNS: Final = _words("""
    user order product invoice ticket comment file folder project issue task event channel
    team role policy rule tag category customer subscription plan coupon payment refund
    address device sensor alarm webhook template page post article album track playlist book
    author review booking room flight driver vehicle trip stop station shipment package
    warehouse store employee department contract lead deal campaign contact account card
    transaction wallet asset instance volume network subnet firewall certificate secret
    cluster node namespace deployment service repository branch commit release pipeline build
    run artifact environment variable queue topic stream function layer bucket object database
    table collection index document record dataset model experiment endpoint prompt assistant
    thread agent dashboard alert monitor incident session token group member organization
    workspace board label milestone note attachment form survey question answer quote ticker
    position trade market currency location zone route schedule calendar slot participant
    recipient domain zone host server image container pod consumer partition offset schema
    field feature segment experiment variant flag rating score badge level game match player
    league season recipe ingredient patient appointment prescription claim lab sample gene
    protein course lesson student grade exam vote poll proposal block validator peer
    contractor supplier part machine
""")
_METAS: Final = _words("""
    health status ping version config settings info me whoami capabilities limits quota
    features metadata schema types locales currencies countries timezones time ready uptime
    license about options preferences constants permissions/me usage/quota profile healthz
    readyz livez heartbeat system/info server/status build-info api-version feature-flags
    openapi.json robots.txt favicon.ico
""")
_JOBS: Final = _words("""
    export import backup restore snapshot report transcode render sync reindex migration
    simulation optimization training fine-tune batch-prediction evaluation crawl scan replay
    backfill rebuild archive dump conversion transcription forecast compaction replication
    bulk-update mass-mailing data-export bulk-import reconciliation recalculation backtest
    benchmark ingestion deduplication
""")
_RUNS: Final = _words("""
    export reindex rebuild backup restore train retrain transcode render compact vacuum resync
    recalculate reprocess migrate optimize simulate evaluate crawl replay transcribe generate-
    report bulk-import export-csv sync-all full-sync forcemerge repair rebalance predict
    analyze
""")
_CONTROLS: Final = _words("""
    cancel pause resume approve reject archive close reopen publish enable disable activate
    lock assign rename retry acknowledge star follow verify accept decline confirm share move
    invite mute
""")
_MODELS: Final = _words("""
    chat completions generate embeddings rerank classify predict moderations transcriptions
    translate summarize text-to-speech speech-to-text detect recognize ocr caption upscale
    images/generations chat/completions infer vision/analyze v1/messages rewrite paraphrase
    extract-entities sentiment similarity inpaint text-to-image image-to-video translations
    audio/speech
""")
_IDS: Final = (
    "42", "8f14e45f-ceea-467f-9a36-dedb8b3f1e2a", "ord_9Kd82hA", "01HZX3K9QW8E7R6T5Y4U3I2O1P",
    "5f2b6c7d8e9f0a1b2c3d4e5f", "a-1001", "alpha-7", "100234", "x9Fz31kQ",
)  # fmt: skip


def drills() -> list[Row]:
    """All rows of this module, always the same."""
    made = [
        *_rest(),
        *_jobs(),
        *_models(),
        *_analytics(),
        *_calls(),
        *_block_ranges(),
        *_graphql(),
        *_sql(),
        *_documents(),
    ]
    return [
        Row(FILE, f"drill-{style}", view, label, clear=True, same_endpoint=False, why="policy")
        for style, label, view in made
    ]


type _Made = tuple[str, Label, RequestView]


def _view(
    method: str, path: str, body: object = None, headers: tuple[str, str] | None = None
) -> RequestView:
    text = (
        b""
        if body is None
        else body.encode()
        if isinstance(body, str)
        else json.dumps(body).encode()
    )
    media = "" if body is None else "text/xml" if isinstance(body, str) else "application/json"
    return RequestView(
        method=method,
        path=path,
        content_type=media,
        headers=semantic_headers([headers] if headers else []),
        body=text,
        body_bytes=len(text),
    )


def _plural(noun: str) -> str:
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "ch", "sh")) else "s")


def _camel(name: str) -> str:
    head, *rest = name.replace("/", "-").split("-")
    return head + "".join(word.capitalize() for word in rest)


def _pascal(name: str) -> str:
    return "".join(word.capitalize() for word in name.replace("/", "-").split("-"))


def _rest() -> Iterator[_Made]:
    """Ordinary resources: lookups, lists, writes."""
    prefixes = ("/api/v1", "/v2", "", "/api", "/rest/v1", "/service/v3")
    for at, noun in enumerate(_NOUNS):
        prefix, key, other = (
            prefixes[at % 6],
            _IDS[at % 9],
            _plural(_NOUNS[(at * 7 + 3) % len(_NOUNS)]),
        )
        things = f"{prefix}/{_plural(noun)}"
        patterns: tuple[tuple[Label, RequestView], ...] = (
            (_FAST, _view("GET", f"{things}/{key}")),
            (_GENERAL, _view("GET", things)),
            (_GENERAL, _view("POST", things, {"name": "example", "description": "text"})),
            (_GENERAL, _view("GET", f"{things}/{key}/{other}")),
            (_GENERAL, _view("GET", f"{things}?limit=20&cursor=abc")),
            (_GENERAL, _view("PATCH", f"{things}/{key}", {"name": "other"})),
            (_FAST, _view("GET", f"{things}/{key}?fields=id,name")),
            (_GENERAL, _view("DELETE", f"{things}/{key}")),
            (_GENERAL, _view("POST", f"{things}/search", {"query": "abc", "limit": 25})),
            (_GENERAL, _view("PUT", f"{things}/{key}", {"name": "other", "enabled": True})),
            (_FAST, _view("GET", f"{things}/{key}/status")),
            (_GENERAL, _view("POST", f"{things}/{key}/{_CONTROLS[at % len(_CONTROLS)]}", {})),
            (_GENERAL, _view("GET", f"{things}?status=active&sort=-created_at&per_page=50")),
            (_HIGH, _view("GET", f"{things}?limit=100000")),
            (_HIGH, _view("GET", f"{things}/export?format=csv")),
            (_FAST, _view("HEAD", f"{things}/{key}")),
        )
        for step in range(4):
            label, view = patterns[(at * 5 + step * 7) % len(patterns)]
            yield f"rest{at % 3}", label, view
    for at, meta in enumerate(_METAS):
        yield f"rest{at % 3}", _FAST, _view("GET", f"{prefixes[at % 6]}/{meta}")


def _jobs() -> Iterator[_Made]:
    """Heavy work: starting it is heavy, asking about it is not."""
    for at, job in enumerate(_JOBS):
        jobs, key, noun = f"/v1/{_plural(job)}", _IDS[at % 9], _plural(_NOUNS[at * 3])
        yield f"rest{at % 3}", _HIGH, _view("POST", jobs, {"source": noun, "format": "full"})
        yield f"rest{at % 3}", _HIGH, _view("POST", f"/v1/{noun}/{job}", {"all": True})
        yield f"rest{at % 3}", _FAST, _view("GET", f"{jobs}/{key}")
        yield f"rest{at % 3}", _FAST, _view("GET", f"{jobs}/{key}/status")
        yield f"rest{at % 3}", _GENERAL, _view("GET", f"{jobs}?limit=20")
        yield f"rest{at % 3}", _GENERAL, _view("POST", f"{jobs}/{key}/cancel")
        yield (
            f"rest{at % 3}",
            _GENERAL,
            _view("PUT", f"/v1/{job}-settings/{key}", {"enabled": False}),
        )
        yield f"rest{at % 3}", _GENERAL, _view("DELETE", f"{jobs}/{key}")
    for at, run in enumerate(_RUNS):
        yield (
            f"rest{at % 3}",
            _HIGH,
            _view("POST", f"/api/{_plural(_NOUNS[at * 5])}/{_IDS[at % 9]}/{run}"),
        )
        yield f"rest{at % 3}", _HIGH, _view("POST", f"/admin/{run}", {"force": True})


def _models() -> Iterator[_Made]:
    """Asking a model to work is heavy; keeping what it works with is not."""
    for at, name in enumerate(_MODELS):
        body: dict[str, object] = {"model": "m-1", "input": "some text", "temperature": 0.2}
        if at % 3 == 0:
            body = {"messages": [{"role": "user", "content": "some text"}], "max_tokens": 50}
        if at % 3 == 1:
            body = {"prompt": "some text", "n": 1}
        yield f"rest{at % 3}", _HIGH, _view("POST", f"/v1/{name}", body)
        yield (
            f"rest{(at + 1) % 3}",
            _HIGH,
            _view("POST", f"/models/m-{at}/{name}", {"inputs": ["a", "b"]}),
        )
        yield f"rest{at % 3}", _FAST, _view("GET", f"/v1/models/model-{at}-large")
    for at, noun in enumerate(
        ("prompts", "assistants", "threads", "agents", "templates", "datasets")
    ):
        body = {
            "name": "n",
            "model": "m-1",
            "instructions": "You write reports.",
            "temperature": 0.1,
        }
        yield f"rest{at % 3}", _GENERAL, _view("POST", f"/v1/{noun}", body)
        yield f"rest{at % 3}", _GENERAL, _view("POST", f"/v1/{noun}/{_IDS[at]}", body)
    for path in ("/v1/models", "/models", "/api/models", "/v1/engines"):
        yield "rest0", _FAST, _view("GET", path)


def _analytics() -> Iterator[_Made]:
    """Aggregation over much is heavy, over little it is not."""
    years = "from=2020-01-01&to=2024-12-31"
    words = _words("analytics stats metrics/query reports/run insights aggregate timeseries/query")
    for at, word in enumerate(words):
        wide = {
            "metrics": ["count"],
            "groupBy": ["country", "day"],
            "start": "2020-01-01",
            "end": "2024-12-31",
        }
        narrow = {
            "metric": "cpu",
            "filter": {"host": "h-1"},
            "start": "2024-06-01T10:00:00Z",
            "end": "2024-06-01T11:00:00Z",
        }
        yield f"rest{at % 3}", _HIGH, _view("POST", f"/v1/{word}", wide)
        yield f"rest{at % 3}", _GENERAL, _view("POST", f"/v1/{word}", narrow)
        yield f"rest{at % 3}", _HIGH, _view("GET", f"/v1/{word}?{years}&group_by=product,region")
        yield f"rest{at % 3}", _GENERAL, _view("GET", f"/v1/{word}?id=7&last=1h&limit=50")


def _calls() -> Iterator[_Made]:
    """The same meanings as names of remote procedures."""
    named: list[tuple[Label, str, dict[str, object]]] = []
    for at, noun in enumerate(_NOUNS):
        thing, key = _pascal(noun), _IDS[at % 9]
        cases: tuple[tuple[Label, str, dict[str, object]], ...] = (
            (_FAST, f"get{thing}", {"id": key}),
            (_GENERAL, f"list{_plural(thing)}", {"limit": 20}),
            (_GENERAL, f"create{thing}", {"name": "example"}),
            (_FAST, f"get{thing}ById", {f"{noun}Id": key}),
            (_GENERAL, f"update{thing}", {"id": key, "name": "other"}),
            (_GENERAL, f"search{_plural(thing)}", {"query": "abc", "limit": 10}),
            (_FAST, f"describe{thing}", {"name": "one"}),
            (_GENERAL, f"delete{thing}", {"id": key}),
            (_HIGH, f"exportAll{_plural(thing)}", {}),
            (_GENERAL, f"get{_plural(thing)}", {"page": 1}),
            (_HIGH, f"scanAll{_plural(thing)}", {}),
            (_GENERAL, f"get{thing}List", {"filter": "active"}),
            (_FAST, f"{noun}Exists", {"id": key}),
            (_HIGH, f"bulkImport{_plural(thing)}", {"url": "s3://bucket/all.csv"}),
        )
        named.extend(cases[(at * 3 + step * 4) % len(cases)] for step in range(3))
    for job in _JOBS:
        work = _pascal(job)
        named += [
            (_HIGH, f"start{work}", {"source": "all"}), (_HIGH, f"run{work}Job", {}),
            (_FAST, f"get{work}Status", {"jobId": "7"}), (_GENERAL, f"list{_plural(work)}", {}),
            (_GENERAL, f"cancel{work}", {"jobId": "7"}), (_FAST, f"describe{work}", {"id": "7"}),
        ]  # fmt: skip
    named += [
        (_HIGH, name, {"table": "t", "filter": "a = :a"})
        for name in ("scan", "scanTable", "fullScan", "dumpAll", "exportTable", "walkTree")
    ]
    named += [(_HIGH, _camel(name), {"input": "some text"}) for name in _MODELS]
    named += [(_HIGH, f"{_camel(name)}", {"target": "all"}) for name in _RUNS]
    named += [
        (_FAST, name, {})
        for name in (
            "ping",
            "getVersion",
            "getStatus",
            "getServerTime",
            "whoAmI",
            "getConfig",
            "getInfo",
            "health.check",
        )
    ]
    for at, (label, name, arguments) in enumerate(named):
        yield f"call{at % 5}", label, _call(at % 5, name, arguments)


def _block_ranges() -> Iterator[_Made]:
    """What a read of events costs is the width of its range, whatever the chain calls it."""
    for at, method in enumerate(_EVENT_READS):
        start = 18_000_000 + 977 * at
        ranges = [
            *((hex(start), hex(start + width), _GENERAL) for width in (0, 20, 400)),
            (hex(start), hex(start + 2_000_000), _HIGH),
            ("0x0", "latest", _HIGH),
            ("earliest", "latest", _HIGH),
        ]
        for first, last, label in ranges:
            chosen = {"fromBlock": first, "toBlock": last, "address": hex(start * 7_919)}
            question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": [chosen]}
            yield "range", label, _view("POST", "/", question)


_EVENT_READS: Final = _words("""
    eth_getLogs eth_getFilterLogs getLogs get_events trace_filter queryEvents starknet_getEvents
    klay_getLogs chain_getEvents fetchTransfers
""")


def _call(style: int, name: str, arguments: dict[str, object]) -> RequestView:
    upper = name[0].upper() + name[1:]
    match style:
        case 0:
            return _view(
                "POST", "/rpc", {"jsonrpc": "2.0", "id": 1, "method": name, "params": arguments}
            )
        case 1:
            return _view("POST", "/gateway", {"action": name, **arguments})
        case 2:
            return _view("POST", "/", arguments, ("x-amz-target", f"Service_2020.{upper}"))
        case 3:
            return _view("POST", f"/acme.shop.v1.ShopService/{upper}", arguments)
        case _:
            return _soap(upper, arguments)


def _soap(name: str, arguments: dict[str, object]) -> RequestView:
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in arguments.items())
    return _view("POST", "/ws", f"<Envelope><Body><{name}>{inner}</{name}></Body></Envelope>")


def _graphql() -> Iterator[_Made]:
    """The same meanings as root fields."""
    for at, noun in enumerate(_NOUNS):
        many, thing, key = _plural(noun), _pascal(noun), _IDS[at % 9]
        inner = _plural(_NOUNS[(at * 11 + 5) % len(_NOUNS)])
        leaf = _plural(_NOUNS[(at * 13 + 1) % len(_NOUNS)])
        cases: tuple[tuple[Label, str], ...] = (
            (_FAST, f'{{ {noun}(id: "{key}") {{ id name }} }}'),
            (_GENERAL, f"query List {{ {many}(first: 20) {{ nodes {{ id name }} }} }}"),
            (_GENERAL, f'mutation {{ create{thing}(input: {{name: "x"}}) {{ {noun} {{ id }} }} }}'),
            (_HIGH, f"{{ {many} {{ id {inner} {{ id {leaf} {{ id name }} }} }} }}"),
            (_GENERAL, f'mutation {{ update{thing}(id: "{key}", input: {{name: "y"}}) {{ id }} }}'),
            (_HIGH, f"{{ {many}Aggregate {{ count sum {{ amount }} }} }}"),
            (_GENERAL, f'{{ {noun}(id: "{key}") {{ id {inner}(first: 10) {{ id name }} }} }}'),
            (
                _HIGH,
                f"{{ {many}(first: 100) {{ nodes {{ {inner}(first: 100) {{ nodes {{ id }} }} }} }} }}",
            ),
            (
                _HIGH,
                f"mutation {{ start{_pascal(_JOBS[at % len(_JOBS)])}(all: true) {{ job {{ id }} }} }}",
            ),
        )
        for step in range(2):
            label, query = cases[(at * 2 + step * 5) % len(cases)]
            yield f"gql{at % 2}", label, _view("POST", "/graphql", {"query": query})


_SQL: Final = (
    (_FAST, "SELECT 1"), (_FAST, "SELECT version()"), (_FAST, "SELECT now()"),
    (_FAST, "SELECT * FROM {many} WHERE id = {number}"),
    (_FAST, "SELECT name, status FROM {many} WHERE {noun}_id = '{key}'"),
    (_FAST, "SELECT value FROM {many} WHERE key = $1 LIMIT 1"),
    (_FAST, "SHOW TABLES"), (_FAST, "DESCRIBE TABLE {many}"),
    (_FAST, "EXPLAIN SELECT status, count(*) FROM {many} GROUP BY status"),
    (_FAST, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"),
    (_GENERAL, "SELECT id, name FROM {many} WHERE status = 'open' ORDER BY created_at DESC LIMIT 20"),
    (_GENERAL, "SELECT * FROM {many} LIMIT 100"),
    (_GENERAL, "SELECT * FROM {many} WHERE owner_id = 7 ORDER BY id LIMIT 50 OFFSET 100"),
    (_GENERAL, "SELECT a.id, b.name FROM {many} a JOIN owners b ON a.owner_id = b.id WHERE a.id = {number}"),
    (_GENERAL, "INSERT INTO {many} (id, name) VALUES ({number}, 'x')"),
    (_GENERAL, "UPDATE {many} SET name = 'y' WHERE id = {number}"),
    (_GENERAL, "DELETE FROM {many} WHERE id = {number}"),
    (_GENERAL, "CREATE TABLE {many} (id BIGINT, name TEXT)"),
    (_GENERAL, "ALTER TABLE {many} ADD COLUMN note TEXT"),
    (_GENERAL, "SELECT avg(value) FROM {many} WHERE {noun}_id = 7 AND ts > now() - INTERVAL 1 HOUR"),
    (_HIGH, "SELECT count(*) FROM {many}"),
    (_HIGH, "SELECT status, count(*), avg(amount) FROM {many} GROUP BY status ORDER BY 2 DESC"),
    (_HIGH, "SELECT * FROM {many}"),
    (_HIGH, "SELECT * FROM {many} WHERE description LIKE '%abc%'"),
    (_HIGH, "SELECT country, sum(x) FROM {many} WHERE ts >= '2020-01-01' GROUP BY country LIMIT 10"),
    (_HIGH, "SELECT id, row_number() OVER (PARTITION BY owner ORDER BY ts) FROM {many}"),
    (_HIGH, "SELECT a.owner, count(DISTINCT b.id) FROM {many} a JOIN events b ON a.id = b.ref JOIN days d ON d.id = b.day GROUP BY a.owner"),
    (_HIGH, "SELECT DISTINCT owner FROM {many}"),
    (_HIGH, "INSERT INTO archive SELECT * FROM {many}"),
    (_HIGH, "CREATE TABLE copy AS SELECT * FROM {many}"),
    (_HIGH, "DELETE FROM {many}"), (_HIGH, "OPTIMIZE TABLE {many} FINAL"), (_HIGH, "VACUUM FULL {many}"),
    (_HIGH, "SELECT * FROM {many} LIMIT 1000000"),
    (_HIGH, "SELECT quantile(0.99)(latency) FROM {many} WHERE day >= today() - 90 GROUP BY service"),
)  # fmt: skip


def _sql() -> Iterator[_Made]:
    """Statements, in the envelopes that databases give them."""
    for at, (label, template) in enumerate(_SQL * 4):
        noun = _NOUNS[(at * 5 + 2) % len(_NOUNS)]
        text = template.format(
            many=_plural(noun).replace("-", "_"), noun=noun, number=1000 + at, key=_IDS[at % 9]
        )
        style = (at + at // len(_SQL)) % 5
        yield f"sql{style % 3}", label, _statement(style, text)


def _statement(style: int, text: str) -> RequestView:
    match style:
        case 0:
            return RequestView("POST", "/", "text/plain", (), text.encode(), len(text))
        case 1:
            return _view("POST", "/v1/query", {"query": text})
        case 2:
            return _view("POST", "/api/sql", {"sql": text, "database": "main"})
        case 3:
            return _view("GET", f"/query?q={quote_plus(text)}")
        case _:
            return _view("POST", "/v2/statements", {"statement": text, "timeout": 60})


def _documents() -> Iterator[_Made]:
    """Query documents of search engines and document stores."""
    for at, noun in enumerate(_NOUNS[::3]):
        many = _plural(noun)
        path = (
            f"/{many}/_search",
            f"/indexes/{many}/search",
            f"/collections/{many}/query",
            f"/db/{many}/find",
        )[at % 4]
        cases: tuple[tuple[Label, dict[str, object]], ...] = (
            (_GENERAL, {"query": {"match": {"name": "abc"}}, "size": 10}),
            (
                _HIGH,
                {
                    "size": 0,
                    "aggs": {
                        "by": {"terms": {"field": "status"}, "aggs": {"a": {"avg": {"field": "x"}}}}
                    },
                },
            ),
            (_GENERAL, {"q": "abc", "filter": "status = open", "limit": 20}),
            (_HIGH, {"query": {"match_all": {}}, "size": 10000}),
            (
                _GENERAL,
                {"filter": {"status": "open", "created": {"$gt": "2024-06-01"}}, "limit": 25},
            ),
            (_HIGH, {"pipeline": [{"$group": {"_id": "$status", "n": {"$sum": 1}}}]}),
            (_FAST, {"filter": {"_id": _IDS[at % 9]}, "limit": 1}),
            (_HIGH, {"query": {"wildcard": {"name": "*abc*"}}, "size": 5000}),
            (
                _HIGH,
                {
                    "aggregations": ["count", "sum"],
                    "group_by": ["country"],
                    "dateRange": "last 365 days",
                },
            ),
        )
        for step in range(2):
            label, body = cases[(at * 2 + step * 5) % len(cases)]
            yield f"doc{at % 2}", label, _view("POST", path, body)
