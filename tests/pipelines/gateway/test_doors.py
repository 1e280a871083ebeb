"""Health, readiness, models and metrics; and what events look like byte by byte."""

import asyncio
import json

import httpx

from actors.messages import TokenLogprob
from pipelines.chat import Part, Served, Usage
from pipelines.gateway.app import create
from pipelines.gateway.shapes import ChatShape, TextShape
from tests.pipelines.gateway.conftest import Stage

HELLO = {"model": "starter", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


async def test_health_needs_no_key_and_asks_no_model(stage: Stage):
    stage.client.ready = False
    async with httpx.AsyncClient(transport=httpx.ASGITransport(stage.app), base_url="http://localhost") as http:
        answer = await http.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_ready_follows_the_models(stage: Stage):
    async with stage.http() as http:
        assert (await http.get("/ready")).json() == {"ready": True, "models": {"starter": True}}
        stage.client.ready = False
        answer = await http.get("/ready")
        assert answer.status_code == 503
        assert answer.json() == {"ready": False, "models": {"starter": False}}
        assert answer.headers["retry-after"] == "1"
        assert "max_model_len" not in (await http.get("/v1/models")).json()["data"][0]


async def test_ready_says_why_a_gang_waits_for_a_place(stage: Stage):
    why = {"starter": "1 gang waits for a place: each needs 4 CPU"}
    served = Served("starter", stage.client, stage.tokenizer)
    stage.app = create({"starter": served}, stage.ring, waiting=lambda: why)
    async with stage.http() as http:
        assert (await http.get("/ready")).json()["waiting"] == why


async def test_metrics_of_a_turn_and_gauges_back_at_zero_after_an_abort(stage: Stage):
    async with stage.http() as http:
        await http.post("/v1/chat/completions", json=HELLO)
        text = (await http.get("/metrics")).text
    for line in (
        'vllm:request_success_total{finished_reason="length",model_name="starter",version=""} 1.0',
        'vllm:time_to_first_token_seconds_count{model_name="starter",version=""} 1.0',
        'vllm:inter_token_latency_seconds_count{model_name="starter",version=""} 4.0',
        'vllm:request_queue_time_seconds_sum{model_name="starter",version=""} 0.001',
        'vllm:request_prefill_time_seconds_sum{model_name="starter",version=""} 0.002',
        'vllm:request_generation_tokens_sum{model_name="starter",version=""} 5.0',
        'vllm:num_requests_running{engine="r0",model_name="starter",version=""} 0.0',
        'strata_http_requests_total{method="POST",route="/v1/chat/completions",status="200"} 1.0',
        "strata_http_requests_in_flight 1.0",  # the scrape itself
    ):
        assert line in text
    stage.client.free_deltas = 1
    body = json.dumps(HELLO | {"stream": True}).encode()
    asked, heard = iter([{"type": "http.request", "body": body}]), asyncio.Event()

    async def receive():
        for message in asked:
            return message
        await heard.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        heard.set()

    headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {stage.key}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers}
    await stage.app(scope, receive, send)
    assert stage.client.streams[1].cancelled.is_set()
    told = stage.metrics.text().decode()
    assert 'vllm:num_requests_running{engine="r0",model_name="starter",version=""} 0.0' in told
    assert "strata_http_requests_in_flight 0.0" in told
    assert 'vllm:request_success_total{finished_reason="abort",model_name="starter",version=""} 1.0' in told


def data(raw: bytes) -> dict:
    assert raw.startswith(b"data: ")
    assert raw.endswith(b"\n\n")
    assert raw.count(b"\n") == 2
    assert raw.isascii()
    return json.loads(raw[6:])


def test_an_event_is_one_line_whatever_the_text(tokenizer):
    text = 'a"b\\c\n\r\t\x00\x85\u2028\u2029é你😀</script>'
    for shape in (ChatShape("i", 1, 'na"me', tokenizer), TextShape("i", 1, 'na"me', tokenizer)):
        shape.event(Part(0, ""))
        first, second = data(shape.event(Part(0, text))), data(shape.event(Part(0, text, finish="stop")))
        assert first["model"] == 'na"me'
        said = [event["choices"][0].get("text") or event["choices"][0]["delta"]["content"] for event in (first, second)]
        assert said == [text, text]
        assert second["choices"][0]["finish_reason"] == "stop"


def test_minus_infinity_is_a_number(tokenizer):
    low = TokenLogprob(70, float("-inf"), ((71, float("-inf")),))
    chat = ChatShape("i", 1, "m", tokenizer, logprobs=True)
    role, told, rest = chat.event(Part(0, "x", (low,))).split(b"\n\n")
    assert rest == b""
    assert data(role + b"\n\n")["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    told = data(told + b"\n\n")["choices"][0]["logprobs"]["content"][0]
    assert told["logprob"] == told["top_logprobs"][0]["logprob"] == -9999.0
    text = TextShape("i", 1, "m", tokenizer, logprobs=True)
    assert data(text.event(Part(0, "x", (low,))))["choices"][0]["logprobs"]["token_logprobs"] == [-9999.0]


def test_offsets_run_on_over_events_and_echo(tokenizer):
    shape = TextShape("i", 1, "m", tokenizer, logprobs=True, echoes=["abc"])
    one, two = TokenLogprob(64, -1.0), TokenLogprob(65, -1.0)
    events = [data(shape.event(Part(0, "xy", (one, two)))), data(shape.event(Part(0, "z", (one,))))]
    assert [event["choices"][0]["logprobs"]["text_offset"] for event in events] == [[3, 4], [5]]
    assert events[0]["choices"][0]["text"] == "abcxy"


def test_usage_comes_last_and_only_when_wanted(tokenizer):
    usage = Usage(3, 2, 1)
    assert ChatShape("i", 1, "m", tokenizer).last(usage) == b"data: [DONE]\n\n"
    raw = ChatShape("i", 1, "m", tokenizer, include_usage=True).last(usage)
    told, done, rest = raw.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    assert json.loads(told[6:])["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "total_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 1},
    }
