"""The labels file: what it may say, and how it is refused."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classifier.configuration import SettingsError
from classifier.contracts import LABELS, Label
from classifier.labels_file import NO_FILE, parse_labels_file, read_labels_file
from classifier.rules import RequestFacts, first_match

WHOLE = """
[labels.reports]
description = "Nightly reports over the whole warehouse"
pool = "http://localhost:9004"
spill_pool = "high-compute"
min_confidence = 0.8
examples = [
  { method = "post", path = "/reports/run", body = '{"range": "2020..2024"}' },
  { path = "/reports/daily", headers = { Prefer = "respond-async", "x-secret" = "s" } },
]

[labels.batch]
pool = "reports"

[labels.high-compute]
min_confidence = 0.6
description = "Also everything about invoices"

[[rules]]
name = "exports"
label = "high-compute"
method = "GET"
path = "/v1/*/export"

[[rules]]
name = "big-tenants"
label = "reports"
method = ["POST", "put"]
path_regex = "^/v[0-9]+/"
header = { X-Tenant = "big-*" }
body = '*"dryRun":false*'
body_json = { "query.size" = ">=1000", dryRun = false }
"""


def parse(text: str, **more: object):
    return parse_labels_file(text.encode(), **more)


def refusal(text: str) -> str:
    with pytest.raises(SettingsError) as refused:
        parse(text)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_without_a_file_there_are_the_three_labels_and_no_rules():
    assert read_labels_file("") is NO_FILE
    assert (tuple(NO_FILE.labels), NO_FILE.rules, NO_FILE.digest) == (LABELS, (), "")


def test_own_labels_come_after_the_three_built_in_ones():
    labels = parse(WHOLE).labels
    assert tuple(labels) == (*LABELS, "reports", "batch")
    assert all(type(name) is Label for name in labels)


def test_a_label_has_what_the_file_says_of_it():
    reports = parse(WHOLE).labels[Label("reports")]
    assert reports.description == "Nightly reports over the whole warehouse"
    assert (reports.pool, reports.spill_pool) == ("http://localhost:9004", "high-compute")
    assert reports.min_confidence == 0.8


def test_a_built_in_label_keeps_what_the_file_does_not_say():
    labels = parse(WHOLE).labels
    assert labels[Label.HIGH_COMPUTE].min_confidence == 0.6
    assert labels[Label.HIGH_COMPUTE].description == "Also everything about invoices"
    assert labels[Label.GENERAL] == NO_FILE.labels[Label.GENERAL]


def test_an_example_is_a_request_as_the_classifier_sees_it():
    first, second = parse(WHOLE).labels[Label("reports")].examples
    assert (first.method, first.path) == ("POST", "/reports/run")
    assert (first.body, first.body_bytes) == (b'{"range": "2020..2024"}', 23)
    assert first.content_type == "application/json"
    assert second.method == "GET"
    assert second.headers == (("prefer", "respond-async"),)


def test_a_label_may_share_the_pool_of_another():
    read = parse(WHOLE)
    assert read.pool_of(Label("batch")) == "reports"
    assert read.pool_of(Label("reports")) == "reports"
    assert read.pool_of(Label.GENERAL) == Label.GENERAL


def test_rules_keep_the_order_of_the_file():
    rules = parse(WHOLE).rules
    assert [rule.name for rule in rules] == ["exports", "big-tenants"]
    export = first_match(rules, RequestFacts("GET", "/v1/orders/export?x=1"))
    assert export is rules[0]
    assert export.label is Label.HIGH_COMPUTE


def test_a_rule_fits_only_if_all_its_conditions_do():
    rules = parse(WHOLE).rules
    headers = (("x-tenant", "big-one"),)
    body = b'{"dryRun":false,"query":{"size":1000}}'
    assert first_match(rules, RequestFacts("PUT", "/v1/x", headers, body)) is rules[1]
    for other in (
        RequestFacts("PATCH", "/v1/x", headers, body),
        RequestFacts("PUT", "/x", headers, body),
        RequestFacts("PUT", "/v1/x", (("x-tenant", "small"),), body),
        RequestFacts("PUT", "/v1/x", headers, body.replace(b"1000", b"999")),
        RequestFacts("PUT", "/v1/x", headers, body.replace(b"false", b"true")),
    ):
        assert first_match(rules, other) is None


def test_files_are_equal_if_their_text_is():
    assert parse(WHOLE) == parse(WHOLE)
    assert parse(WHOLE) != parse(WHOLE + "\n")
    assert len({parse(WHOLE), parse(WHOLE)}) == 1


def test_a_filter_is_compiled_by_whoever_can():
    text = '[[rules]]\nname = "f"\nlabel = "general"\nfilter = "~m GET"\n'
    facts = RequestFacts("GET", "/")
    assert first_match(parse(text).rules, facts) is None
    compiled = parse(text, compile_filter=lambda source: lambda facts: source == "~m GET")
    assert first_match(compiled.rules, facts) is not None


def test_a_filter_that_cannot_be_compiled_is_refused_with_its_place():
    def compile_filter(source: str):
        msg = f"{source!r} is no flow filter"
        raise ValueError(msg)

    with pytest.raises(SettingsError, match=r"^LABELS_FILE: rules\[0\]\.filter: '~~' is no flow"):
        parse('[[rules]]\nname="f"\nlabel="general"\nfilter="~~"', compile_filter=compile_filter)


RULE = '[[rules]]\nname = "r"\nlabel = "general"\n'
OWN = '[labels.a]\npool = "http://localhost:1"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "".join(f'[labels.l{at}]\npool = "general"\n' for at in range(30)),
            "labels: there are 33 with the built-in ones; 32 may be",
        ),
        ("x", "it is not TOML: "),
        ("x = " + "[" * 5_000, "it is not TOML: "),
        ("[label.x]", "label: there is no such key; there are labels, rules"),
        ("[labels.x]\ncolour = 1", "labels.x.colour: there is no such key; there are description,"),
        (RULE + 'verb = "GET"', "rules[0].verb: there is no such key; there are name, label,"),
        (
            OWN + "examples = [{ verb = 1 }]",
            "labels.a.examples[0].verb: there is no such key; there are method, path,",
        ),
        ("[labels.X_1]\n", "labels.X_1: 'X_1' is no label"),
        ("[labels.x]\n", "labels.x.pool: it is missing"),
        ('[labels.x]\npool = "y"', "labels.x.pool: unknown label 'y'; there are fast-path,"),
        ('[labels.x]\npool = "x"', "labels.x.pool: 'x' is the label itself"),
        (
            OWN + '[labels.b]\npool = "a"\n[labels.c]\npool = "b"',
            "labels.c.pool: 'b' has no pool of its own; name the label 'a'",
        ),
        (OWN + 'spill_pool = "q"', "labels.a.spill_pool: unknown label 'q'"),
        (OWN + 'spill_pool = "a"', "labels.a.spill_pool: 'a' is the label itself"),
        (
            OWN + '[labels.b]\npool = "a"\nspill_pool = "general"',
            "labels.b.spill_pool: it shares the pool of a",
        ),
        ('[labels.fast-path]\npool = "general"', "labels.fast-path.pool: set FAST_PATH_POOL"),
        (
            '[labels.general]\nspill_pool = "fast-path"',
            "labels.general.spill_pool: set GENERAL_SPILL_POOL",
        ),
        (OWN + "min_confidence = 2", "labels.a.min_confidence: the value should be less"),
        (OWN + 'min_confidence = "x"', "labels.a.min_confidence: 'x' should be a valid number"),
        (OWN + 'description = "a\\u0007"', "labels.a.description: it holds characters"),
        (OWN + 'examples = [{ path = "x" }]', "labels.a.examples[0].path: 'x' "),
        ('[[rules]]\nlabel = "general"', "rules[0].name: it is missing"),
        ('[[rules]]\nname = "a b"\nlabel = "general"', "rules[0].name: 'a b' is no label"),
        (RULE, "rules[0]: it has no condition; give one of method, path,"),
        (
            RULE.replace("general", "x") + 'method = "GET"',
            "rules[0]: unknown label 'x'; there are fast-path, general, high-compute",
        ),
        (RULE + "method = 1", "rules[0].method: the value should be a valid list"),
        (RULE + "method = []", "rules[0].method: the value "),
        (RULE + 'path = ""', "rules[0].path: '' "),
        (RULE + 'path = "/x?y=1"', "rules[0].path: a path is compared without its query"),
        (RULE + 'path_regex = "("', "rules[0].path_regex: '(' is not a usable regular expression"),
        (RULE + "path_regex = '''(\n'''", "rules[0].path_regex: '("),
        (RULE + "header = { a = 1 }", "rules[0].header.a: the value should be a valid string"),
        (RULE + "body_json = { a = [1] }", "rules[0].body_json.a: write text, a number,"),
        (RULE + 'body_json = { a = ">x" }', "rules[0].body_json: '>x' compares with no number"),
        (
            RULE + 'path = "/"\n' + RULE + 'path = "/"',
            "rules[1].name: 'r' is the name of an earlier rule",
        ),
    ],
)
def test_a_fault_refuses_the_file_with_one_line_that_names_the_place(text, message):
    assert refusal(text).startswith(f"LABELS_FILE: {message}")


def test_a_file_that_is_not_text_or_too_long_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="UTF-8"):
        parse_labels_file(b"\xff")
    long = tmp_path / "long.toml"
    long.write_bytes(b"#" * 1_048_577)
    with pytest.raises(SettingsError, match="over 1048576 bytes"):
        read_labels_file(str(long))


@pytest.mark.parametrize("path", ["missing.toml", "/", "a\0b"])
def test_a_file_that_cannot_be_read_is_a_fault_of_the_setting(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"^LABELS_FILE: .* cannot be read \("):
        read_labels_file(path)


def test_a_file_is_read_from_its_path(tmp_path):
    (tmp_path / "labels.toml").write_text(WHOLE)
    assert read_labels_file(str(tmp_path / "labels.toml")) == parse(WHOLE)


def outcome_of(data: bytes) -> str | tuple[Label, ...]:
    try:
        return tuple(parse_labels_file(data).labels)[:3]
    except SettingsError as exc:
        return str(exc)


@given(st.binary(max_size=200) | st.text().map(str.encode))
def test_no_text_ends_otherwise_than_with_labels_or_a_refusal(data):
    outcome = outcome_of(data)
    assert outcome == LABELS or "\n" not in outcome


KEYS = st.sampled_from([*"ab", "name", "label", "path", "pool", "method", "header", "body_json"])
VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=5).map(repr) | st.just('"general"'),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(st.dictionaries(KEYS, VALUES), st.dictionaries(KEYS, VALUES))
def test_no_table_ends_otherwise_than_with_labels_or_a_refusal(label, rule):
    lines = [f"{key} = {str(value).lower()}" for key, value in label.items()]
    lines += ["[[rules]]", *(f"{key} = {str(value).lower()}" for key, value in rule.items())]
    text = "\n".join(["[labels.own]", *lines])
    try:
        tomllib.loads(text)
        parse(text)
    except (tomllib.TOMLDecodeError, SettingsError):
        pass
