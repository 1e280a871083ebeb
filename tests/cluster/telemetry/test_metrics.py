"""The table of metrics and what is read from it."""

from dataclasses import dataclass

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.telemetry.metrics import READ, TABLE, Metrics

VLLM = {  # the names as vLLM exposes them
    "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
    "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total", "vllm:num_preemptions_total",
    "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total",
    "vllm:time_to_first_token_seconds_bucket", "vllm:inter_token_latency_seconds_sum",
    "vllm:e2e_request_latency_seconds_count", "vllm:request_queue_time_seconds_bucket",
    "vllm:request_prefill_time_seconds_bucket", "vllm:request_decode_time_seconds_bucket",
}  # fmt: skip


@dataclass
class Load:
    running: int = 2
    waiting: int = 1
    kv_used: float = 0.5
    preemptions: int = 3
    prefix_queries: int = 100
    prefix_hits: int = 60
    prompt_tokens: int = 1000
    generated_tokens: int = 500
    places: int = 24
    standing: float = 0.25


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Values by name and the values of the labels that have one, in the order of their names."""
    families = text_string_to_metric_families(metrics.text().decode())
    told = (one for each in families for one in each.samples)
    return {
        (one.name, *(one.labels[label] for label in sorted(one.labels) if one.labels[label])): one.value for one in told
    }


def test_every_row_is_exposed_with_its_meaning():
    metrics = Metrics()
    metrics.follow("m", lambda: {"r0": Load()}, lambda: True)
    metrics.answered("/health", "GET", 200, 0.1)
    text = metrics.text().decode()
    for row in TABLE:
        name = row.name + ("_total" if row.kind == "counter" else "")
        assert f"# HELP {name} {row.unit} {row.meaning}" in text
        assert f"# TYPE {name} {row.kind}" in text
    assert {name for name, *_ in samples(metrics)} >= VLLM
    assert "_created" not in text


def test_names_and_labels_are_sound():
    assert len({row.name for row in TABLE}) == len(TABLE)
    for row in TABLE:
        assert row.name.startswith(("vllm:", "strata_"))
        assert not row.name.endswith("_total")
        assert (row.kind == "histogram") == bool(row.buckets)
        assert list(row.buckets) == sorted(row.buckets)
        assert not row.load or row.load in Load.__annotations__
    assert {row.name for row in TABLE} >= READ


def test_loads_are_read_when_somebody_scrapes():
    metrics, loads = Metrics(), {"r0": Load(), "r1": Load(running=5)}
    metrics.follow("m", lambda: loads, lambda: bool(loads))
    told = samples(metrics)
    assert told["vllm:num_requests_running", "r0", "m"] == 2
    assert told["vllm:num_requests_running", "r1", "m"] == 5
    assert told["vllm:prefix_cache_hits_total", "r0", "m"] == 60
    assert told["strata_places", "r0", "m"] == 24
    assert told["strata_standing_queue", "r0", "m"] == 0.25
    assert told["strata_model_ready", "m"] == 1
    loads["r0"] = Load(running=0)
    del loads["r1"]
    told = samples(metrics)
    assert told["vllm:num_requests_running", "r0", "m"] == 0
    assert ("vllm:num_requests_running", "r1", "m") not in told
    loads.clear()
    assert samples(metrics)["strata_model_ready", "m"] == 0


def test_two_of_them_share_nothing():
    one, two = Metrics(), Metrics()
    one.model("m").finished("stop").inc()
    assert samples(one)["vllm:request_success_total", "stop", "m"] == 1
    assert ("vllm:request_success_total", "stop", "m") not in samples(two)
    assert one.model("m") is one.model("m")


def test_versions_of_a_model_have_a_label_of_their_own():
    metrics = Metrics()
    metrics.model("chat@v7").finished("stop").inc()
    metrics.follow("chat@v7", lambda: {"r0": Load()}, lambda: True)
    told = metrics.text().decode()
    assert 'vllm:request_success_total{finished_reason="stop",model_name="chat",version="v7"} 1.0' in told
    assert 'strata_model_ready{model_name="chat",version="v7"} 1.0' in told
    assert 'vllm:num_requests_running{engine="r0",model_name="chat",version="v7"} 2.0' in told


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.0011, 9.9, 10.0, 11.0])
def test_gaps_are_counted_as_so_many_observations(seconds: float) -> None:
    together, apart = Metrics(), Metrics()
    together.model("m").gaps(seconds, 3)
    for _ in range(3):
        apart.model("m").inter_token.observe(seconds)

    def lines(metrics: Metrics) -> list[str]:
        text = metrics.text().decode()
        return [line for line in text.splitlines() if "inter_token" in line and "created" not in line]

    assert lines(together) == lines(apart)
