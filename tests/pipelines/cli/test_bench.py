import json

import httpx
import pytest

from pipelines.cli import bench
from pipelines.cli.bench import Load, Sample


def test_a_summary_leaves_failures_out_of_the_times() -> None:
    samples = [Sample(0.010, 0.110, 11), Sample(0.030, 0.230, 11), Sample(0, 0, 0, "the gang died")]
    row = bench.summarize(2, samples, 0.5)
    assert row["failed"] == 1
    assert row["first token p50 ms"] == pytest.approx(20)
    assert row["between tokens p50 ms"] == pytest.approx(15)
    assert row["tokens/s"] == pytest.approx(44)


def test_percentiles_of_few_values() -> None:
    assert bench.percentile([], 50) == 0
    assert bench.percentile([7.0], 99) == 7.0
    assert bench.percentile([1.0, 2.0, 3.0], 50) == 2.0


def test_prompts_differ_from_the_first_word_on() -> None:
    bodies = [bench.body("m", Load((1,), 2, 8, 4), index)["prompt"].split()[0] for index in range(3)]
    assert len(set(bodies)) == 3


@pytest.mark.parametrize("status", [200, 503])
async def test_a_stream_is_read_to_its_usage(status: int) -> None:
    events = [{"choices": [{"text": "a"}]}, {"choices": [], "usage": {"completion_tokens": 5}}]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    transport = httpx.MockTransport(lambda request: httpx.Response(status, text=text))
    async with httpx.AsyncClient(base_url="http://gateway", transport=transport) as http:
        sample = await bench.ask(http, bench.body("m", Load((1,), 1, 8, 5), 0))
    assert bool(sample.failed) is (status == 503)
    assert sample.tokens == (5 if status == 200 else 0)
