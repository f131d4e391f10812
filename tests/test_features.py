"""What the feature readers make of requests, protocol by protocol."""

import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from classifier.contracts import RequestView, semantic_headers
from classifier.features import extract
from classifier.features.intent import intent_of
from classifier.features.sql import looks_like_sql, parse
from classifier.features.words import groups, is_plural, split_name


def features(
    method: str, path: str, body: object = None, media: str = "", **headers: str
) -> dict[str, float]:
    text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
    raw = text.encode()
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    content_type = media or ("application/json" if body is not None else "")
    return extract(RequestView(method, path, content_type, semantic_headers(named), raw, len(raw)))


def graphql(query: str, variables: object = None) -> dict[str, float]:
    return features("POST", "/graphql", {"query": query, "variables": variables})


def sql(text: str) -> dict[str, float]:
    return features("POST", "/", text, "text/plain")


def named(found: Iterable[str], prefix: str) -> set[str]:
    return {name for name in found if name.startswith(prefix)}


class TestWords:
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("getUserByID2", ("get", "user", "by", "id", "2")),
            ("list_open-orders", ("list", "open", "orders")),
            ("HTTPServer", ("http", "server")),
            ("getblockhash", ("get", "blockhash")),
        ],
    )
    def test_a_name_falls_into_its_words(self, name: str, words: tuple[str, ...]) -> None:
        assert split_name(name) == words

    def test_inflections_keep_their_meaning(self) -> None:
        assert set(groups("exporting")) & set(groups("export"))
        assert set(groups("searched")) & set(groups("search"))

    def test_status_is_no_plural(self) -> None:
        assert is_plural("orders")
        assert not is_plural("status")
        assert not is_plural("address")


class TestIntent:
    @pytest.mark.parametrize(
        ("name", "verb", "head"),
        [
            ("cancelExport", "stop", "export"),
            ("GetExportStatus", "get", "progress"),
            ("start_export", "start", "export"),
            ("blockNumber", "none", "count"),
            ("list_prompt_templates", "list", "template"),
        ],
    )
    def test_the_verb_stands_first_and_the_head_last(self, name: str, verb: str, head: str) -> None:
        assert intent_of(name)[:2] == (verb, head)


class TestTargets:
    def test_an_id_after_a_collection_is_a_lookup(self) -> None:
        for key in ("42", "8f14e45f-ceea-467f-9a36-dedb8b3f1e2a", "ch_1Nx", "octocat"):
            assert "shape=GET:id" in features("GET", f"/v1/users/{key}")

    def test_a_collection_is_a_list(self) -> None:
        assert "rest.do=GET:list:user:some" in features("GET", "/api/v2/users?page=2")

    def test_a_collection_of_one_object_is_a_list(self) -> None:
        assert "shape=GET:sub-list" in features("GET", "/users/42/orders")

    def test_a_version_is_no_id(self) -> None:
        assert "ids=0" in features("GET", "/api/v1.2/users")

    def test_an_action_on_one_object_takes_the_object_as_its_head(self) -> None:
        assert "rest.do=stop:export" in features("POST", "/exports/17/cancel")

    def test_method_override_counts_as_the_method(self) -> None:
        assert "m=GET" in features("POST", "/users", x_http_method_override="GET")


class TestArguments:
    def test_a_page_size_is_the_same_in_query_and_body(self) -> None:
        there = features("GET", "/users?limit=20")
        here = features("POST", "/users/search", {"limit": 20})
        assert "limit=few" in there
        assert "limit=few" in here

    def test_an_export_sized_limit_is_seen(self) -> None:
        assert "limit=huge" in features("GET", "/users?per_page=100000")

    def test_two_dates_make_a_span(self) -> None:
        assert "span=year" in features("GET", "/stats?from=2023-01-01&to=2024-01-01")
        assert "span=hours" in features(
            "POST", "/stats", {"start": "2024-01-01T10:00:00Z", "end": "2024-01-01T11:00:00Z"}
        )

    def test_broken_json_still_gives_its_fields(self) -> None:
        assert "arg=limit" in features(
            "POST", "/find", '{"limit": 5, "selector": {"a": ', "application/json"
        )

    def test_a_trailing_comma_is_forgiven(self) -> None:
        assert "body=json" in features(
            "POST", "/_replicate", '{"source": "a",}', "application/json"
        )

    def test_xml_elements_are_arguments(self) -> None:
        body = (
            "<Envelope><Body><FindItems><MaxResults>20</MaxResults></FindItems></Body></Envelope>"
        )
        found = features("POST", "/ws", body, "text/xml")
        assert {"proto=soap", "limit=few"} <= set(found)


class TestGraphql:
    def test_one_object_by_id_is_a_point(self) -> None:
        assert "g=point" in graphql("{ user(id: 1) { name } }")

    def test_a_field_without_arguments_is_a_singleton(self) -> None:
        assert "gql=singleton" in graphql("query { viewer { login } }")

    def test_lists_within_lists_are_counted(self) -> None:
        found = graphql("{ users { posts { comments { text } } } }")
        assert "g=open3" in found

    def test_a_connection_and_its_edges_are_one_list(self) -> None:
        found = graphql("{ users(first: 10) { edges { node { name } } } }")
        assert "g=page1" in found

    def test_limits_come_from_variables_too(self) -> None:
        found = graphql("query Q($n: Int!) { users(first: $n) { id } }", {"n": 5000})
        assert "gql.limit=k" in found

    def test_aggregates_are_seen(self) -> None:
        assert "g=aggregate" in graphql("{ orders_aggregate { aggregate { count } } }")

    def test_a_mutation_is_named_by_its_root(self) -> None:
        assert "mutation.do=create:user" in graphql('mutation { createUser(name: "x") { id } }')

    def test_fragments_are_no_roots(self) -> None:
        found = graphql("query { me { ...F } } fragment F on User { id name }")
        assert "gql.roots=1" in found

    def test_introspection_is_seen_but_typename_is_not(self) -> None:
        assert "gql=introspection" in graphql("{ __schema { types { name } } }")
        assert "gql=introspection" not in graphql("{ me { __typename } }")

    def test_a_document_in_the_query_string_counts(self) -> None:
        assert "g=point" in features("GET", "/graphql?query=%7Buser(id%3A1)%7Bname%7D%7D")

    def test_a_raw_document_counts(self) -> None:
        found = features("POST", "/graphql", "{ user(id: 1) { name } }", "application/graphql")
        assert "g=point" in found

    def test_a_batch_is_as_long_as_its_list(self) -> None:
        found = features("POST", "/graphql", [{"query": "{ a { b } }"}] * 3)
        assert {"proto=graphql", "rpc.batch=few"} <= set(found)

    def test_a_persisted_query_is_opaque(self) -> None:
        body = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "ab"}}}
        assert "proto=graphql-opaque" in features("POST", "/graphql", body)


class TestSql:
    @pytest.mark.parametrize(
        ("text", "verdict"),
        [
            ("SELECT 1", "const"),
            ("SELECT * FROM users WHERE id = 1", "point"),
            ("SELECT * FROM users WHERE id = {id:UInt64}", "point"),
            ("select name from users where user_id = $1 limit 1", "point"),
            ("SELECT * FROM users", "scan-all"),
            ("SELECT * FROM users LIMIT 10", "bounded"),
            ("SELECT * FROM users LIMIT 500000", "scan-large"),
            ("SELECT count(*) FROM users", "agg-all"),
            ("SELECT a, sum(b) FROM t GROUP BY a", "agg-all"),
            (
                "SELECT avg(v) FROM t WHERE host_id = 4 AND ts > now() - INTERVAL 1 HOUR",
                "agg-key-recent",
            ),
            ("SELECT * FROM t WHERE name LIKE '%x%'", "scan-text"),
            ("SELECT * FROM a JOIN b ON a.i = b.i", "join"),
            ("SELECT name FROM information_schema.tables", "system"),
            ("INSERT INTO t VALUES (1, 2)", "write"),
            ("INSERT INTO t SELECT * FROM u", "copy"),
            ("UPDATE t SET a = 1", "write-all"),
            ("UPDATE t SET a = 1 WHERE id = 3", "write"),
            ("CREATE TABLE t AS SELECT * FROM u", "copy"),
            ("CREATE VIEW v AS SELECT count(*) FROM u", "define"),
            ("EXPLAIN SELECT count(*) FROM u GROUP BY a", "meta"),
            ("EXPLAIN ANALYZE SELECT count(*) FROM u GROUP BY a", "agg-all"),
            ("VACUUM FULL t", "bulk"),
            ("SHOW TABLES", "meta"),
            ("SET x = 1; SELECT * FROM t WHERE id = 2", "point"),
            ("-- note\nSELECT 1", "const"),
        ],
    )
    def test_the_clauses_decide(self, text: str, verdict: str) -> None:
        assert f"q={verdict}" in sql(text)

    def test_the_envelope_does_not_matter(self) -> None:
        text = "SELECT count(*) FROM users"
        for found in (
            sql(text),
            features("POST", "/query", {"sql": text}),
            features("POST", "/v2/pipeline", {"requests": [{"stmt": {"sql": text}}]}),
            features("GET", "/exec?query=SELECT+count(*)+FROM+users"),
            features(
                "POST",
                "/q",
                "query=SELECT+count(*)+FROM+users",
                "application/x-www-form-urlencoded",
            ),
        ):
            assert "q=agg-all" in found

    def test_a_dry_run_is_not_the_query(self) -> None:
        text = "SELECT count(*) FROM users"
        for found in (
            features("POST", "/queries", {"query": text, "dryRun": True}),
            features("POST", "/sql/explain", {"query": text}),
        ):
            assert {"q=dry"} == {name for name in named(found, "q=") if ":" not in name}

    def test_a_limit_inside_a_comment_is_no_limit(self) -> None:
        assert parse("SELECT * FROM t -- LIMIT 5").limit is None

    def test_prose_is_no_sql(self) -> None:
        assert not looks_like_sql("select your favourite colour")
        assert not looks_like_sql("Show me the way to the station please")
        assert looks_like_sql("select * from t")


class TestOtherQueryLanguages:
    @pytest.mark.parametrize(
        ("text", "verdict"),
        [
            ("MATCH (n:User {id: 1}) RETURN n", "point"),
            ("MATCH (n) RETURN count(n)", "agg-all"),
            ("RETURN 1", "const"),
        ],
    )
    def test_cypher(self, text: str, verdict: str) -> None:
        assert f"q={verdict}" in features("POST", "/db/neo4j/tx", {"statement": text})

    def test_promql_windows_count(self) -> None:
        path = "/api/v1/query?query=sum(rate(http_requests_total[5m]))"
        assert "q=prom-sumrate" in features("GET", path)
        assert "q=prom-long" in features("GET", "/api/v1/query?query=avg_over_time(x[30d])")

    def test_a_pipeline_that_summarises_a_year_aggregates(self) -> None:
        body = {"query": "Requests | where ts > ago(365d) | summarize count() by country"}
        assert "q=agg-all" in features("POST", "/v1/rest/query", body)

    def test_sparql_is_no_sql(self) -> None:
        found = features(
            "POST", "/sparql", "SELECT ?a WHERE { ?a ?b ?c }", "application/sparql-query"
        )
        assert "proto=ql" in found

    def test_search_aggregations_are_told_from_pages(self) -> None:
        page = features("POST", "/a/_search", {"query": {"match": {"t": "x"}}, "size": 10})
        aggs = features("POST", "/a/_search", {"size": 0, "aggs": {"a": {"terms": {"field": "b"}}}})
        assert "d=page" in page
        assert "d=agg" in aggs


class TestCalls:
    @pytest.mark.parametrize(
        "found",
        [
            features("POST", "/", {"jsonrpc": "2.0", "method": "getUser", "params": [1], "id": 1}),
            features("POST", "/", {}, x_amz_target="Shop_2020.GetUser"),
            features("POST", "/shop.v1.ShopService/GetUser", {}),
            features("POST", "/gateway", {"action": "getUser", "key": 1}),
            features("POST", "/?Action=GetUser"),
            features("POST", "/ws", "<Envelope><Body><GetUser/></Body></Envelope>", "text/xml"),
            features(
                "POST",
                "/ws",
                "<methodCall><methodName>users.getUser</methodName></methodCall>",
                "text/xml",
            ),
        ],
    )
    def test_one_operation_is_the_same_in_every_protocol(self, found: dict[str, float]) -> None:
        assert "rpc.do=get:user" in found

    def test_a_namespace_does_not_hide_the_verb(self) -> None:
        body = {"jsonrpc": "2.0", "method": "debug_getRawBlock", "params": [], "id": 1}
        found = features("POST", "/", body)
        assert {"do.verb=get", "ns.w=debug"} <= set(found)

    def test_a_generic_call_is_named_by_its_parameters(self) -> None:
        body = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "generate_image"}}
        assert "do.verb=generate" in features("POST", "/mcp", body)

    def test_the_rpc_id_is_no_argument(self) -> None:
        body = {"jsonrpc": "2.0", "method": "ping", "params": {}, "id": 1}
        assert "args=only-ids" not in features("POST", "/", body)

    def test_a_batch_of_calls_is_counted(self) -> None:
        calls = [{"jsonrpc": "2.0", "method": "getUser", "id": n} for n in range(30)]
        assert "rpc.batch=page" in features("POST", "/", calls)


class TestInference:
    def test_turns_with_roles_are_a_conversation(self) -> None:
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        assert {"ai=chat", "ai=prompt+model"} <= set(features("POST", "/v1/x", body))

    def test_a_file_in_parts_is_known_by_its_kind(self) -> None:
        body = '--b\r\nContent-Disposition: form-data; name="file"; filename="a.mp3"\r\n'
        body += "Content-Type: audio/mpeg\r\n\r\nx"
        found = features("POST", "/v1/x", body, "multipart/form-data; boundary=b")
        assert {"part.media=audio", "part.ext=audio"} <= set(found)


class TestBounds:
    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(
        path=st.text(max_size=200),
        media=st.sampled_from(
            ["", "application/json", "text/xml", "application/x-www-form-urlencoded"]
        ),
        body=st.binary(max_size=2000),
    )
    def test_any_bytes_give_finite_features(self, path: str, media: str, body: bytes) -> None:
        found = extract(RequestView("POST", path, media, (), body, len(body)))
        assert all(-1e6 < value < 1e6 for value in found.values())

    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(text=st.text(alphabet="{}()[]:,$@\"'%*=&<>/\\|; \nabSELECTfromquery0123", max_size=600))
    def test_any_query_text_gives_features(self, text: str) -> None:
        assert graphql(text)
        assert sql(text)

    def test_equal_requests_give_equal_features(self) -> None:
        assert graphql("{ a(id: 1) { b } }") == graphql("{ a(id: 1) { b } }")
