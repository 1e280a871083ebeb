"""Bytes on a real socket: smuggling, slowness, size and encodings."""

import asyncio
import gzip
import json

import pytest

from pipelines.gateway.settings import GatewaySettings
from tests.pipelines.gateway.conftest import Stage, listening

BODY = json.dumps({"model": "starter", "messages": [{"role": "user", "content": "x"}], "max_tokens": 2}).encode()
GZIPPED = gzip.compress(BODY, mtime=0)  # the same on every worker that collects this file
LARGE = 64 * 1024


async def speak(port: int, *sent: bytes, seconds: float = 20) -> bytes:
    """Send bytes as they are, and return all that comes until the server closes or has answered once."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(seconds):
            for part in sent:
                writer.write(part)
                await writer.drain()
            return await answer(reader)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        got = await reader.read(65536)
        if not got:
            return head
        head += got
    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if not length:
        return head + await reader.read()
    body = head.partition(b"\r\n\r\n")[2]
    missing = int(length[0].split(b":")[1]) - len(body)
    return head + (await reader.readexactly(missing) if missing > 0 else b"")


def head(stage: Stage, *more: str, path: str = "/v1/chat/completions", verb: str = "POST") -> bytes:
    lines = [f"{verb} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {stage.key}", *more]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def status(raw: bytes) -> int:
    return int(raw.split(b" ")[1]) if raw else 0


JSON = "Content-Type: application/json"
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = "Transfer-Encoding: chunked"


async def test_sound(stage: Stage, port: int):
    assert status(await speak(port, head(stage, JSON, LENGTH), BODY)) == 200
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
    assert status(await speak(port, head(stage, JSON, CHUNKED), chunks)) == 200


SMUGGLED = {
    "CL and TE": [LENGTH, CHUNKED],
    "TE and CL": [CHUNKED, LENGTH],
    "two CL": [LENGTH, "Content-Length: 0"],
    "two equal CL": [LENGTH, LENGTH],
    "a list as CL": [f"Content-Length: {len(BODY)}, {len(BODY)}"],
    "a negative CL": ["Content-Length: -1"],
    "a hexadecimal CL": ["Content-Length: 0x10"],
    "a signed CL": ["Content-Length: +10"],
    "a CL beyond 64 bits": [f"Content-Length: {'9' * 30}"],
    "TE that is not chunked": ["Transfer-Encoding: xchunked"],
    "a folded header": [LENGTH, "X-A: b\r\n c"],
    "NUL in a value": [LENGTH, "X-A: b\x00c"],
    "NUL in a name": [LENGTH, "X\x00A: b"],
    "a bare CR": [LENGTH, "X-A: b\rX-B: c"],
    "a space before the colon": [LENGTH, "X-A : b"],
    "no colon": [LENGTH, "nothing"],
    "two Authorization": [LENGTH, "Authorization: Bearer x"],
    "two Host": [LENGTH, "Host: localhost"],
    "two Content-Type": [LENGTH, "Content-Type: text/plain"],
}


@pytest.mark.parametrize("lines", SMUGGLED.values(), ids=SMUGGLED.keys())
async def test_contradictions(stage: Stage, port: int, lines: list[str]):
    """400, 413 or the connection is closed: in no case does a model hear of it."""
    raw = await speak(port, head(stage, JSON, *lines), BODY)
    assert status(raw) in (400, 413, 0)
    assert b"Traceback" not in raw
    assert not stage.client.streams


async def test_two_keys_are_refused_in_words(stage: Stage, port: int):
    raw = await speak(port, head(stage, JSON, LENGTH, f"Authorization: Bearer {stage.key}"), BODY)
    assert status(raw) == 400
    assert b"connection: close" in raw.lower()
    assert json.loads(raw.split(b"\r\n\r\n")[1])["error"]["code"] == "bad_headers"


@pytest.mark.parametrize("size", [9_000, 1_000_000])
async def test_a_huge_token(stage: Stage, port: int, size: int):
    line = f"Authorization: Bearer {'A' * size}"
    raw = await speak(port, f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n".encode())
    assert status(raw) in (400, 401, 431, 0)
    if size < 10_000:
        assert status(raw) == 431


async def test_huge_headers(stage: Stage, port: int):
    raw = await speak(port, head(stage, *[f"X-{place}: {'a' * 500}" for place in range(70)], verb="GET"))
    assert status(raw) == 431


@pytest.mark.parametrize("target", ["http://evil.example/v1/models", "http://evil.example/admin", "//v1/models", "*"])
async def test_targets(stage: Stage, port: int, target: str):
    """An absolute target is judged by its path, as RFC 9112 wants, or not at all; the rest does not exist."""
    raw = await speak(port, head(stage, path=target, verb="GET"))
    assert status(raw) in ((200, 404) if target == "http://evil.example/v1/models" else (400, 404))


MEDIA = [
    (["Content-Type: text/plain", LENGTH], BODY),
    (["Content-Type: application/x-www-form-urlencoded", LENGTH], BODY),
    (["Content-Type: multipart/form-data; boundary=x", LENGTH], BODY),
    ([JSON, "Content-Encoding: gzip", f"Content-Length: {len(GZIPPED)}"], GZIPPED),
    ([JSON, "Content-Encoding: br", LENGTH], BODY),
    ([JSON, "Content-Encoding: gzip, gzip", LENGTH], BODY),
]


@pytest.mark.parametrize(("lines", "body"), MEDIA, ids=lambda part: str(part)[:40])
async def test_media(stage: Stage, port: int, lines: list[str], body: bytes):
    raw = await speak(port, head(stage, *lines), body)
    assert status(raw) == 415
    assert json.loads(raw.split(b"\r\n\r\n")[1])["error"]["code"] == "unsupported_media_type"


@pytest.fixture
def small(make_stage) -> Stage:
    return make_stage(GatewaySettings(body_bytes=LARGE, body_seconds=0.2, request_seconds=0.3, farewell_seconds=0.1))


async def test_a_body_that_is_too_large(small: Stage):
    async with listening(small.app) as port:
        for length in (LARGE + 1, 2 * LARGE):
            raw = await speak(port, head(small, JSON, f"Content-Length: {length}"), b" " * length)
            assert status(raw) == 413
        raw = await speak(port, head(small, JSON, "Content-Length: 99999999999999"), b" " * LARGE * 8)
        assert status(raw) in (413, 0)


async def test_chunks_without_end(small: Stage):
    """Refused at the limit; what still comes is thrown away, and then the connection goes."""
    sent = 0
    async with listening(small.app) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head(small, JSON, CHUNKED))
        chunk = b"%x\r\n%b\r\n" % (16384, b" " * 16384)
        try:
            async with asyncio.timeout(20):
                while sent < 100 * LARGE:
                    writer.write(chunk)
                    await writer.drain()
                    sent += len(chunk)
                    await asyncio.sleep(0)
        except ConnectionError:
            pass
        writer.close()
    assert sent < 100 * LARGE
    assert not small.client.streams


async def test_a_slow_body_is_cut(small: Stage):
    async with listening(small.app) as port:
        raw = await speak(port, head(small, JSON, LENGTH), BODY[:5])
    assert status(raw) == 408
    assert b"connection: close" in raw.lower()


async def test_a_deadline_before_the_first_token(small: Stage):
    small.client.free_deltas = 0
    async with listening(small.app) as port:
        raw = await speak(port, head(small, JSON, LENGTH), BODY)
    assert status(raw) == 504
    assert small.client.streams[0].cancelled.is_set()


async def test_a_deadline_in_mid_stream(small: Stage):
    small.client.free_deltas = 1
    body = BODY[:-1] + b',"stream":true}'
    async with listening(small.app) as port:
        raw = await speak(port, head(small, JSON, f"Content-Length: {len(body)}", "Connection: close"), body)
    assert status(raw) == 200
    assert b'"code": "deadline_exceeded"' in raw
    assert b"[DONE]" not in raw
    assert small.client.running == 0


async def test_a_stream_that_nobody_reads_is_cut(small: Stage):
    sent = []

    async def send(message):
        sent.append(message)
        if len(sent) > 2:
            await asyncio.Event().wait()  # the socket's buffer is full

    asked = iter([{"type": "http.request", "body": BODY[:-1] + b',"stream":true}'}])

    async def receive():
        for message in asked:
            return message
        return await asyncio.Event().wait()

    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {small.key}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    async with asyncio.timeout(20):
        await small.app(scope, receive, send)
    assert small.client.running == 0
    assert b"in_flight 0.0" in small.metrics.text()


async def test_websockets_are_closed(stage: Stage):
    sent = []

    async def send(message):
        sent.append(message["type"])

    await stage.app({"type": "websocket", "path": "/", "headers": []}, None, send)
    assert sent == ["websocket.close"]


async def test_a_bug_within_is_an_answer_without_a_trace(stage: Stage, caplog: pytest.LogCaptureFixture):
    stage.client.refuses = ZeroDivisionError("secret detail")
    async with stage.http() as http:
        told = await http.post("/v1/chat/completions", content=BODY, headers={"content-type": "application/json"})
    assert told.status_code == 500
    assert told.json()["error"] == {
        "message": "An unexpected error.",
        "type": "server_error",
        "param": None,
        "code": "internal_error",
    }
    assert any(record.msg == "unexpected" for record in caplog.records)
