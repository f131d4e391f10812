"""Requests whose label is beyond dispute, for load tests: what they are, not what the model says.

`#` in a path or body becomes a number that differs from request to request.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
SQL = "application/sql"

FAST_PATH = "fast-path"
GENERAL = "general"
HIGH_COMPUTE = "high-compute"


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of request; `label` is the pool that it belongs to."""

    label: str
    method: str
    path: str
    content_type: str = ""
    body: str = ""

    @property
    def name(self) -> str:
        """A short name for a report."""
        return f"{self.method} {self.path} {self.body[:60]}".strip()


def _plain(label: str, *targets: str) -> Iterable[Shape]:
    for target in targets:
        method, path = target.split(" ", 1)
        yield Shape(label, method, path)


def _json(label: str, **bodies: Iterable[tuple[str, object]]) -> Iterable[Shape]:
    for method, requests in bodies.items():
        for path, body in requests:
            yield Shape(label, method, path, JSON, json.dumps(body))


def _rpc(label: str, *calls: tuple[str, object]) -> Iterable[Shape]:
    for method, params in calls:
        body = {"jsonrpc": "2.0", "id": "#", "method": method, "params": params}
        yield Shape(label, "POST", "/rpc", JSON, json.dumps(body))


def _graphql(label: str, *queries: str) -> Iterable[Shape]:
    for query in queries:
        yield Shape(label, "POST", "/graphql", JSON, json.dumps({"query": query}))


def _sql(label: str, *statements: str) -> Iterable[Shape]:
    for statement in statements:
        yield Shape(label, "POST", "/query", JSON, json.dumps({"query": statement}))
    yield Shape(label, "POST", "/sql", SQL, statements[0])


SHAPES: tuple[Shape, ...] = (
    *_plain(
        FAST_PATH,
        "GET /healthz",
        "GET /ping",
        "GET /api/version",
        "GET /api/v1/users/#",
        "GET /v1/products/#",
        "GET /api/v1/orders/#/status",
        "HEAD /files/#",
        "GET /orders/_doc/#",
        "GET /_cluster/health",
        "GET /v1/feature-flags/#",
    ),
    *_rpc(
        FAST_PATH,
        ("eth_blockNumber", []),
        ("eth_chainId", []),
        ("eth_gasPrice", []),
        ("net_version", []),
        ("eth_getBalance", ["0x407d73d8a49eeb85d32cf465507dd71d507100c1", "latest"]),
    ),
    *_graphql(
        FAST_PATH,
        "{ user(id: #) { name } }",
        'query { product(id: "#") { price } }',
        "query { viewer { login } }",
    ),
    *_sql(
        FAST_PATH,
        "SELECT name FROM users WHERE id = #",
        "SELECT 1",
        "SELECT status FROM orders WHERE order_id = # LIMIT 1",
    ),
    *_plain(
        GENERAL,
        "GET /api/v1/orders?page=2&limit=20",
        "GET /api/v1/customers?status=active&limit=25&sort=name",
        "DELETE /api/v1/orders/#",
        "DELETE /v1/projects/#/members/#",
    ),
    *_json(
        GENERAL,
        POST=(
            ("/api/v1/orders", {"customer_id": "#", "items": [{"sku": "A-100", "quantity": 2}]}),
            ("/auth/login", {"username": "ada", "password": "not-a-real-one"}),
            ("/api/v1/comments", {"post_id": "#", "text": "Thank you, that helped."}),
            ("/api/v1/cart/items", {"product_id": "#", "quantity": 1}),
            ("/v1/customers", {"email": "ada@example.org", "name": "Ada", "phone": "+4930123456"}),
        ),
        PUT=(
            ("/api/v1/users/#", {"name": "Ada", "email": "ada@example.org", "locale": "de"}),
            ("/orders/_doc/#", {"customer": "ada", "total": 12.5, "currency": "EUR"}),
        ),
        PATCH=(("/api/v1/users/#", {"email": "ada@example.org"}),),
    ),
    Shape(
        GENERAL,
        "POST",
        "/oauth/token",
        FORM,
        "grant_type=refresh_token&refresh_token=x&client_id=#",
    ),
    *_rpc(
        GENERAL,
        ("user.create", {"name": "Ada", "email": "ada@example.org"}),
        ("eth_sendRawTransaction", ["0xd46e8dd67c5d32be8d46e8dd67c5d32be8058bb8eb970870f0"]),
    ),
    *_graphql(
        GENERAL,
        'mutation { createPost(input: {title: "Hello", body: "World"}) { id title } }',
        'mutation { updateUser(id: #, input: {email: "ada@example.org"}) { id email } }',
        "{ orders(first: 20, status: OPEN) { edges { node { id total createdAt } } } }",
    ),
    *_sql(
        GENERAL,
        "INSERT INTO orders (customer_id, total) VALUES (#, 12.50)",
        "UPDATE users SET email = 'ada@example.org' WHERE id = #",
        "SELECT id, total FROM orders WHERE customer_id = # ORDER BY created_at DESC LIMIT 20",
    ),
    *_json(
        HIGH_COMPUTE,
        POST=(
            (
                "/v1/chat/completions",
                {
                    "model": "gpt-4o",
                    "messages": [{"role": "user", "content": "Write an essay about chapter #."}],
                },
            ),
            (
                "/v1/messages",
                {
                    "model": "claude-sonnet-4-5",
                    "max_tokens": 4096,
                    "messages": [{"role": "user", "content": "Summarise report # in detail."}],
                },
            ),
            ("/v1/completions", {"model": "llama-3", "prompt": "Once upon #", "max_tokens": 800}),
            ("/v1/embeddings", {"model": "bge-m3", "input": ["text #", "second", "third"]}),
            ("/v1/images/generations", {"model": "sdxl", "prompt": "a fox #", "size": "1024x1024"}),
            ("/v1/fine_tuning/jobs", {"model": "llama-3-8b", "training_file": "file-#"}),
            ("/api/v1/reports/generate", {"report": "annual", "year": 2025, "format": "pdf"}),
            ("/api/v1/exports", {"dataset": "all-orders", "format": "csv", "columns": "all"}),
            ("/v1/videos/#/transcode", {"preset": "1080p", "codec": "h265"}),
            ("/v1/models/churn/train", {"dataset": "events-2025", "epochs": 20}),
            (
                "/logs/_search",
                {
                    "size": 0,
                    "aggs": {
                        "per_day": {
                            "date_histogram": {"field": "@timestamp", "calendar_interval": "day"},
                            "aggs": {"users": {"cardinality": {"field": "user_id"}}},
                        }
                    },
                },
            ),
            ("/_reindex", {"source": {"index": "logs-2024"}, "dest": {"index": "logs-all"}}),
        ),
    ),
    *_rpc(
        HIGH_COMPUTE,
        ("eth_getLogs", [{"fromBlock": "0x0", "toBlock": "latest"}]),
        ("debug_traceBlockByNumber", ["0x10d4f", {"tracer": "callTracer"}]),
        ("trace_filter", [{"fromBlock": "0x1", "toBlock": "0xf4240"}]),
    ),
    *_graphql(
        HIGH_COMPUTE,
        "{ organizations(first: 100) { nodes { repositories(first: 100) { nodes { issues(first: "
        "100) { nodes { comments(first: 100) { nodes { author { login } body } } } } } } } } }",
        "{ salesReport(year: 2025) { byMonth { total average byRegion { total byProduct { total } "
        "} } } }",
    ),
    *_sql(
        HIGH_COMPUTE,
        "SELECT region, date_trunc('month', created_at) AS m, SUM(total), AVG(total) FROM orders "
        "JOIN customers ON customers.id = orders.customer_id GROUP BY region, m ORDER BY m",
        "SELECT user_id, COUNT(DISTINCT session_id) FROM events GROUP BY user_id "
        "HAVING COUNT(*) > 100",
        "SELECT * FROM events",
        "CREATE TABLE totals AS SELECT product_id, SUM(quantity) FROM order_items "
        "GROUP BY product_id",
    ),
)
