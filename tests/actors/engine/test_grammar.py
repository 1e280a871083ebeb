"""Specs compiled: what is taken, what is refused, and what it may cost."""

import re

import pytest

from actors.constraint import structured
from actors.engine.grammar import MATCHER_BYTES, Cache, Grammars, lark, rehearsed, said
from cluster.errors import InvalidRequest
from tests.actors.engine.tokenizers_made import KINDS, tokenizer

EXACT = sorted(KINDS.keys() - {"wordpiece", "metaspace"})


@pytest.fixture
def grammars() -> Grammars:
    return Grammars(lambda: tokenizer("bytes"))


def takes(grammars: Grammars, spec: str, text: str, kind: str = "bytes") -> bool:
    """Whether `text` may be a whole answer."""
    matcher = grammars.matcher(spec)
    return matcher.consume_tokens(tokenizer(kind).plain_tokens(text)) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("asked", "whole", "wrong"),
    [
        ({"json": {"type": "integer"}}, "12", "1.5"),
        ({"json_object": True}, '{"a": [1, null]}', "[1]"),
        ({"json": {"type": "array"}, "disable_any_whitespace": True}, "[1,2]", "[1, 2]"),
        ({"json": {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}},
         "[[],[[]]]", "[1]"),
        ({"regex": r"\d{3}-[a-c]+"}, "123-abc", "12-abc"),
        ({"regex": "^a|b$"}, "b", "ab"),
        ({"choice": ["yes", 'n"o\n', "中文"]}, 'n"o\n', "y"),
        ({"choice": ["yes", "中文"]}, "中文", "中"),
        ({"grammar": 'start: "a"+ B\nB: /[0-9]/'}, "aa1", "a"),
        ({"grammar": 'root ::= "a" rest\n\n\nrest ::= [0-9]+ | "x"'}, "a12", "ab"),
    ],
)  # fmt: skip
def test_forms(grammars: Grammars, asked, whole, wrong):
    spec = structured(asked)
    grammars.check(spec)
    assert takes(grammars, spec, whole)
    assert not takes(grammars, spec, wrong)


def test_whitespace_has_an_end(grammars: Grammars):
    spec = structured({"json": {"type": "object"}})
    assert takes(grammars, spec, '{\n    "a": 1\n}')
    assert not takes(grammars, spec, '{\n\n\n"a":1}')
    assert not takes(grammars, spec, '{      "a":1}')


@pytest.mark.parametrize("kind", EXACT)
def test_every_tokenizer_that_spells_its_bytes(kind: str):
    grammars = Grammars(lambda: tokenizer(kind))
    spec = structured({"json": {"type": "object", "properties": {"é": {"type": "string"}}, "required": ["é"]}})
    grammars.check(spec)
    own = tokenizer(kind)
    matcher = grammars.matcher(spec)
    for piece in ('{"é": ', '"ab 中', '"}'):  # a tokenizer may put a space before a text: spell it byte by byte
        tokens = grammars.vocabulary.greedy_tokenize(piece)
        assert b"".join(map(own.bytes_of, tokens)) == piece.encode()
        assert matcher.consume_tokens(tokens)
    assert matcher.is_accepting()


def test_a_tokenizer_that_does_not_is_refused():
    with pytest.raises(InvalidRequest, match="cannot be held to a form"):
        Grammars(lambda: tokenizer("wordpiece")).check("regex:a")


def test_a_vocabulary_without_braces_is_refused_what_needs_them():
    with pytest.raises(InvalidRequest):
        Grammars(lambda: tokenizer("metaspace")).check('json:{"type":"object"}')


HOSTILE = [
    {"json": {"$ref": "http://127.0.0.1:1/x.json"}},
    {"json": {"$ref": "file:///etc/passwd"}},
    {"json": {"$ref": "#/nowhere"}},
    {"json": {"$ref": "#"}},
    {"json": {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}},
    {"json": {"type": "strin"}},
    {"json": False},
    {"json": {"type": "string", "enum": [1]}},
    {"json": {"type": "string", "pattern": "(?=a)b"}},
    {"json": {"type": "array", "uniqueItems": True}},
    {"json": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(270)}}},
    {"json": {"allOf": [{"anyOf": [{"type": "object", "properties": {f"k{i}{j}": {"type": "integer"}}}
                                   for j in range(4)]} for i in range(12)]}},
    {"regex": "(a"},
    {"regex": "(?=a)b"},
    {"regex": r"[^\s\S]"},
    {"grammar": "start: foo"},
    {"grammar": "root ::= " + "(" * 9000},
    {"grammar": 'start: @other'},
]  # fmt: skip


@pytest.mark.parametrize("asked", HOSTILE, ids=lambda asked: str(asked)[:50])
def test_what_cannot_be_kept_to_is_refused_by_name(grammars: Grammars, asked):
    with pytest.raises(InvalidRequest) as caught:
        grammars.check(structured(asked), "response_format")
    assert caught.value.param == "response_format"
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a{1,3000}){1,3000}", "(a|a)*b", "(.*a){30}", "a{1,100000000}", r"(\w{1,300}\s){1,100}"]
)
def test_patterns_that_ruin_others_are_automata_here(grammars: Grammars, pattern: str):
    spec = structured({"regex": pattern})
    grammars.check(spec)
    matcher = grammars.matcher(spec)
    assert matcher.consume_tokens(tokenizer("bytes").plain_tokens("a" * 50)) or pattern.startswith(r"(\w")


def test_lines_without_end_are_translated_at_once():
    assert len(lark('root ::= "a"' + "\n \t\n" * 8000)) < 100


def test_many_schemas_take_no_more_room_than_the_cache_has():
    own = Grammars(lambda: tokenizer("bytes"), cache_bytes=MATCHER_BYTES * 8)
    for number in range(300):
        spec = structured({"json": {"type": "object", "properties": {f"p{number}": {"type": "integer"}}}})
        own.check(spec)
        assert not own.matcher(spec).is_error()
    assert len(own._compiled) <= 8
    assert own._compiled.bytes <= MATCHER_BYTES * 8
    assert len(own._verdicts) <= 128


def test_one_spec_is_compiled_once(grammars: Grammars, monkeypatch: pytest.MonkeyPatch):
    compiled = []
    monkeypatch.setattr("actors.engine.grammar.grammar", lambda spec: compiled.append(spec) or "start: /a/")
    for _ in range(3):
        grammars.matcher("regex:a")
    grammars.forget("regex:a")
    grammars.matcher("regex:a")
    assert compiled == ["regex:a"] * 2


@pytest.mark.parametrize("pattern", ["(a{1000}){1000}", "(((a{100}){100}){100}){100}", "(a{100}b{100}){500}"])
def test_what_was_refused_once_is_refused_again_without_a_look(
    grammars: Grammars, monkeypatch: pytest.MonkeyPatch, pattern: str
):
    spec, looks = structured({"regex": pattern}), []
    monkeypatch.setattr("actors.engine.grammar.rehearsed", lambda *given: looks.append(1) or rehearsed(*given))
    for _ in range(16):
        with pytest.raises(InvalidRequest, match="too large together"):
            grammars.check(spec)
    assert looks == [1]


def test_the_cache_keeps_what_was_used_last():
    cache: Cache[str] = Cache(10)
    cache.put(b"a", "a", 4)
    cache.put(b"b", "b", 4)
    assert cache.get(b"a") == "a"
    cache.put(b"c", "c", 4)
    assert (cache.get(b"a"), cache.get(b"b"), cache.get(b"c")) == ("a", None, "c")
    cache.put(b"d", "d", 11)  # larger than all of it
    assert cache.get(b"d") is None
    assert (len(cache), cache.bytes) == (2, 8)
    cache.put(b"a", "A", 1)
    assert (cache.get(b"a"), cache.bytes) == ("A", 5)


def test_what_grows_with_use_makes_room(grammars: Grammars):
    own = Grammars(lambda: tokenizer("bytes"), cache_bytes=MATCHER_BYTES * 8)
    for letter in "abc":
        own.matcher(f"regex:{letter}")
    own.used("regex:b", 0.001)
    assert own._compiled.bytes > MATCHER_BYTES * 3 + 200_000
    own.used("regex:c", 10.0)  # more than the cache may hold: the next is compiled anew
    assert len(own._compiled) == 2
    own.used("regex:gone", 1.0)
    assert len(own._compiled) == 2


def test_the_compilers_words_are_short_and_hold_no_schema(grammars: Grammars):
    with pytest.raises(InvalidRequest) as caught:
        grammars.check("regex:(" + "x" * 3000)
    assert len(caught.value.remedy) < 320
    assert re.fullmatch(r"[ -~]*", caught.value.remedy)


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 5}]}, "use anyOf"),
        ({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(270)}}, "fewer optional"),
        ({"not": {}}, 'leave out "not"'),
        ({"if": {}, "then": {}}, 'leave out "if", "then"'),
        ({"type": "number", "minimum": 1.5e300}, "closer bounds"),
        ({"type": "number", "exclusiveMinimum": 1e-300}, "make it simpler"),
        ({"type": "foo"}, "foo is no type: there are array"),
        ({"type": "string", "format": "foo"}, "the format foo is not known"),
        ({"$ref": "#/nope"}, "no #/nope"),
        ({"$ref": "http://a/b"}, "nothing is fetched from http://a/b"),
        ({"type": "string", "minLength": 5, "maxLength": 2}, r"minLength \(5\) is greater .*: give a schema"),
    ],
)
def test_what_is_too_much_is_said_in_words_that_help(grammars: Grammars, schema, says):
    with pytest.raises(InvalidRequest, match=says):
        grammars.check(structured({"json": schema}), "response_format")


def test_a_pattern_that_takes_too_long_is_refused_with_a_remedy():
    assert "make them shorter" in said("fuel exhausted when checking relevance of lexemes (100000)")
