"""What no client library sends, through the real HAProxy: framing, hosts, targets, verbs, long headers."""

import json
from collections.abc import Iterator

import pytest

from tests.system.attacked import CHAT, HONEST, JSON, MODELS, ROUTES, Target, target
from tests.system.conftest import MODEL, Stack
from tests.system.wire import Door, ask, chunked, request

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

BODY = HONEST[CHAT]
SIZE = len(BODY)
CHUNKS = chunked(BODY)
SMUGGLED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
TE = "Transfer-Encoding: chunked"


@pytest.fixture(scope="module")
def victim(stack: Stack) -> Iterator[Target]:
    yield from target(stack)


@pytest.fixture(autouse=True)
def unharmed(victim: Target) -> Iterator[None]:
    yield
    victim.unharmed()


# Framing that no two parsers need agree on: (headers, what follows them).
BAD_FRAMES: dict[str, tuple[list[str | bytes], bytes]] = {
    "two lengths that differ": ([f"Content-Length: {SIZE}", "Content-Length: 3"], BODY),
    "lengths in a list that differ": ([f"Content-Length: {SIZE}, 3"], BODY),
    **{
        f"length {value!r}": ([f"Content-Length: {value}"], BODY)
        for value in ("+5", "-1", "0x10", "5 5", "1e2", "", "9" * 25, "5\x0b", "５".encode().decode("latin-1"))
    },
    "a space before the colon": ([f"Content-Length : {SIZE}"], BODY),
    **{
        f"coding {value!r}": ([f"Transfer-Encoding: {value}"], CHUNKS)
        for value in ("xchunked", "chunked, identity", "\x0bchunked", "chunked, chunked", "chunked\x00", '"chunked"')
    },
    "chunked twice": ([TE, TE], CHUNKS),
    "a space before its colon": (["Transfer-Encoding : chunked"], CHUNKS),
    **{
        f"chunk size {size!r}": ([TE], size + b"\r\n" + BODY + b"\r\n0\r\n\r\n")
        for size in (b"zz", b"-5", b"f" * 17, b"0x10", b" ", b"", b"5\x00")
    },
    "a chunk longer than it says": ([TE], b"2\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "chunks with bare line feeds": ([TE], CHUNKS.replace(b"\r\n", b"\n")),
    **{
        f"header {line!r}": ([line, f"Content-Length: {SIZE}"], BODY)
        for line in (
            b"X-A: a\x00b", b"X-\x00A: b", b"\x00", b"X-A: a\rb", b"nonsense", b": empty", b"X A: b", b"X\x7f: b",
            b"X-A\xff: b",
        )
    },
    "a header that begins with a space": ([b" X-A: b", f"Content-Length: {SIZE}"], BODY),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_framing_that_is_refused(victim: Target, case: str) -> None:
    extra, after = BAD_FRAMES[case]
    first = [extra[0], *victim.headers] if case.startswith("a header that begins") else [*victim.headers, *extra]
    with Door(victim.port) as door:
        answer = door.send(request("POST", CHAT, [JSON, *first] if "begins" not in case else first) + after).answer()
        assert answer is not None
        assert answer.status == 400
        assert victim.stack.key.encode() not in answer.body
        assert door.closed()


# What HAProxy takes as RFC 9112 allows (2.2, 5.2, 6.1, 6.3) and writes anew: the gateway sees one plain request, and
# what a second parser might have taken for another request is not answered.
MENDED: dict[str, tuple[list[str | bytes], bytes]] = {
    "length and chunks": ([f"Content-Length: {SIZE}", TE], CHUNKS),
    "chunks and a shorter length": ([TE, "Content-Length: 4"], CHUNKS),
    "one length twice": ([f"Content-Length: {SIZE}", f"Content-Length: {SIZE}"], BODY),
    "one length in a list": ([f"Content-Length: {SIZE}, {SIZE}"], BODY),
    "a folded header": (["X-A: b\r\n c", f"Content-Length: {SIZE}"], BODY),
    "a folded coding": (["Transfer-Encoding:\r\n chunked"], CHUNKS),
    "a tab before the coding": (["Transfer-Encoding:\tchunked"], CHUNKS),
    "a bare line feed": ([f"X-A: b\nContent-Length: {SIZE}"], BODY),
    "a bare line feed before a coding": ([f"X-A: b\n{TE}"], CHUNKS),
    "a chunk with an extension": ([TE], CHUNKS.replace(b"\r\n", b";a=b\r\n", 1)),
}


@pytest.mark.parametrize("case", MENDED)
def test_framing_that_is_made_plain_is_one_request(victim: Target, case: str) -> None:
    extra, after = MENDED[case]
    with Door(victim.port) as door:
        door.send(request("POST", CHAT, [*victim.headers, JSON, *extra]) + after)
        answer = door.answer()
        assert answer is not None
        assert answer.status == 200
        if TE in extra and len(extra) > 1:  # 6.1: with both, the connection ends with the answer
            assert door.closed()
            return
        again = door.send(victim.honest("/health")).answer()
        assert again is not None
        assert json.loads(again.body) == {"status": "ok"}


@pytest.mark.parametrize("length", [0, 1, 4, SIZE])
def test_a_request_smuggled_behind_the_last_chunk_is_not_answered(victim: Target, length: int) -> None:
    with Door(victim.port) as door:
        head = request("POST", CHAT, [*victim.headers, JSON, TE, f"Content-Length: {length}"])
        answer = door.send(head + CHUNKS + SMUGGLED).answer()
        assert answer is not None
        assert answer.status == 200
        assert door.closed()


@pytest.mark.parametrize("garbage", [
    bytes(range(256)), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 99, b"GET /health\r\n",
    b"\n" * 99 + b"x\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", b"GET  /health HTTP/1.1\r\n\r\n",
    b"GET /health HTTP/1.1 x\r\n\r\n", b"GET /health HTTX/1.1\r\n\r\n",
    b"G\x00T /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"SSH-2.0-x\r\n\r\n", b"*1\r\n$4\r\nPING\r\n", b"GET /health HTTP/1.1\r\n\r\n",
], ids=lambda garbage: repr(garbage[:24]))  # fmt: skip
def test_what_is_no_http(victim: Target, garbage: bytes) -> None:
    with Door(victim.port) as door:
        answer = door.send(garbage).answer()
        assert answer is None or answer.status == 400
        assert door.closed()


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "user@localhost", "localhost/x", "[::1",
                                  "127.0.0.1.evil.example", "a b", "localhost:port", "", "l\u00f6calhost"])  # fmt: skip
@pytest.mark.parametrize("route", ROUTES)
def test_a_foreign_host(victim: Target, route: str, host: str) -> None:
    sent = victim.honest(route).replace(b"Host: localhost", f"Host: {host}".encode("latin-1"))
    answer = ask(victim.port, sent)
    assert answer is not None
    assert answer.status == 400


DISGUISES = {
    "double slash": lambda path: f"/{path}",
    "inner slash": lambda path: path.replace("/", "//").replace("//", "/", 1) if path.count("/") > 1 else path + "/",
    "slash": lambda path: path + "/",
    "dots": lambda path: "/v1/.." + path,
    "dots encoded": lambda path: "/v1/%2e%2e" + path,
    "dots encoded twice": lambda path: "/v1/%252e%252e" + path,
    "dots and parameter": lambda path: "/v1/..;" + path,
    "dot": lambda path: "/." + path,
    "parameter": lambda path: path + ";x=1",
    "NUL encoded": lambda path: path + "%00",
    "line end encoded": lambda path: path + "%0d%0aX-Role:%20admin",
    "letter encoded": lambda path: path[:-1] + f"%{ord(path[-1]):02x}",
    "slash encoded": lambda path: "/%2f" + path[1:],
    "backslash": lambda path: path.replace("/", "\\"),
    "backslash inside": lambda path: "/" + path[1:].replace("/", "\\") + "\\",
    "capitals": str.upper,
    "space": lambda path: path + "%20",
    "absolute": lambda path: f"http://localhost{path}",
    "absolute, https": lambda path: f"https://localhost{path}",
    "absolute, foreign": lambda path: f"http://evil.example{path}",
    "no slash": lambda path: path[1:],
    "fragment": lambda path: path + "#x",
    "not ASCII": lambda path: path + "\xe9",
    "asterisk": lambda path: "*",
    "admin": lambda path: path + "/admin",
    "Ray's own": lambda path: "/-/routes",
}


@pytest.mark.parametrize("disguise", DISGUISES)
@pytest.mark.parametrize("route", ROUTES)
def test_another_spelling_of_a_path_is_no_path(victim: Target, route: str, disguise: str) -> None:
    body = HONEST.get(route)
    answer = ask(victim.port, request(ROUTES[route], DISGUISES[disguise](route), [*victim.headers, JSON], body))
    assert answer is not None
    allowed = (400, 404, 405) if route == MODELS else (400, 404)  # /v1/models/NAME is a path of its own
    assert answer.status in allowed
    assert f'"id":"{MODEL}"'.encode() not in answer.body


@pytest.mark.parametrize("verb", ["TRACE", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "BREW", "get", "GETT",
                                  "PROPFIND", "X" * 300, "TRACK", "DEBUG", "M-SEARCH", "GE.T", "1", "!"])  # fmt: skip
@pytest.mark.parametrize("route", ROUTES)
def test_another_verb(victim: Target, route: str, verb: str) -> None:
    with Door(victim.port) as door:
        answer = door.send(request(verb, route, [*victim.headers, "X-Canary: seen"])).answer(bodiless=verb == "HEAD")
    assert answer is not None
    assert answer.status == 405
    assert answer.headers["allow"]
    assert b"seen" not in answer.body


@pytest.mark.parametrize("size", [9_000, 20_000, 70_000, 1_000_000])
@pytest.mark.parametrize("where", ["Authorization: Bearer ", "X-A: ", "Cookie: ", "Host: "])
def test_a_header_that_is_too_long(victim: Target, where: str, size: int) -> None:
    lines = [line for line in victim.headers if not where.startswith(line.split(":")[0])]
    with Door(victim.port) as door:
        answer = door.send(request("GET", MODELS, [*lines, where + "a" * size])).answer()
    if size == 9_000 and where in ("X-A: ", "Cookie: "):
        assert answer is not None
        assert answer.status == 200
    else:
        assert answer is None or answer.status in (400, 401, 431)
