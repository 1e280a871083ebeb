"""Every metric: one table of name, kind, unit, meaning and labels, and the values made from it.

The names of model metrics are vLLM's, so that its dashboards work; what only Strata has begins with `strata_`.
A version of a model, NAME@VERSION, has the name as `model_name` and a label of its own; a model without one has none.
What an engine counts is not copied: it is read from the replicas' last reported loads when somebody scrapes.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

# The buckets of vLLM's own histograms (vllm/v1/metrics/loggers.py), so that quantiles compare.
FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0)
WHOLE = (0.005, 0.025, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
TENTHS = tuple(tenth / 10 for tenth in range(1, 11))
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)


MODEL = ("model_name", "version")


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the table. `load` is the field of a replica's load that it shows, where it shows one."""

    name: str
    kind: str  # gauge, counter or histogram
    unit: str
    meaning: str
    labels: tuple[str, ...] = MODEL
    buckets: tuple[float, ...] = ()
    load: str = ""


REPLICA = (*MODEL, "engine")  # vLLM's label for one of several engines
TABLE = (
    Metric("vllm:num_requests_running", "gauge", "sequences", "in the current step", REPLICA, load="running"),
    Metric("vllm:num_requests_waiting", "gauge", "sequences", "waiting for a place", REPLICA, load="waiting"),
    Metric("vllm:kv_cache_usage_perc", "gauge", "fraction", "KV blocks in use, 1 is all", REPLICA, load="kv_used"),
    Metric(
        "vllm:prefix_cache_queries",
        "counter",
        "tokens",
        "looked up in the prefix cache",
        REPLICA,
        load="prefix_queries",
    ),
    Metric("vllm:prefix_cache_hits", "counter", "tokens", "found in the prefix cache", REPLICA, load="prefix_hits"),
    Metric("vllm:num_preemptions", "counter", "sequences", "put back for want of blocks", REPLICA, load="preemptions"),
    Metric("vllm:prompt_tokens", "counter", "tokens", "of prompts taken in", REPLICA, load="prompt_tokens"),
    Metric("vllm:generation_tokens", "counter", "tokens", "made", REPLICA, load="generated_tokens"),
    Metric(
        "vllm:time_to_first_token_seconds", "histogram", "seconds", "from submission to the first token", buckets=FIRST
    ),
    Metric("vllm:inter_token_latency_seconds", "histogram", "seconds", "between tokens of a choice", buckets=BETWEEN),
    Metric("vllm:e2e_request_latency_seconds", "histogram", "seconds", "from submission to the end", buckets=WHOLE),
    Metric("vllm:request_queue_time_seconds", "histogram", "seconds", "from arrival to the first step", buckets=WHOLE),
    Metric(
        "vllm:request_prefill_time_seconds",
        "histogram",
        "seconds",
        "from the first step to the first token",
        buckets=WHOLE,
    ),
    Metric(
        "vllm:request_decode_time_seconds", "histogram", "seconds", "from the first token to the last", buckets=WHOLE
    ),
    Metric("vllm:request_prompt_tokens", "histogram", "tokens", "of a request's prompts", buckets=TOKENS),
    Metric("vllm:request_generation_tokens", "histogram", "tokens", "of one choice", buckets=TOKENS),
    Metric(
        "vllm:request_success",
        "counter",
        "choices",
        "ended, by why: stop, length or abort",
        (*MODEL, "finished_reason"),
    ),
    Metric("strata_shadow_agreement", "histogram", "fraction", "of words shared with the answer seen", buckets=TENTHS),
    Metric("strata_shadows", "counter", "requests", "mirrored: compared, dropped or failed", (*MODEL, "outcome")),
    Metric("strata_evals", "counter", "questions", "of rollouts: right or wrong", (*MODEL, "outcome")),
    Metric(
        "strata_places", "gauge", "sequences", "worth running at once; more would only wait", REPLICA, load="places"
    ),
    Metric(
        "strata_standing_queue",
        "gauge",
        "fraction",
        "of late time, in which somebody waited for a first turn",
        REPLICA,
        load="standing",
    ),
    Metric("strata_replica_up", "gauge", "bool", "1 for each replica that reports its load", REPLICA),
    Metric("strata_model_ready", "gauge", "bool", "1 when a replica has made a real token"),
    Metric(
        "strata_http_requests",
        "counter",
        "requests",
        "answered, by route, verb and status",
        ("route", "method", "status"),
    ),
    Metric("strata_http_requests_in_flight", "gauge", "requests", "being answered", ()),
    Metric(
        "strata_http_request_seconds",
        "histogram",
        "seconds",
        "from the first byte in to the last out",
        ("route",),
        WHOLE,
    ),
)

READ = frozenset({"strata_replica_up", "strata_model_ready"})  # read at scrape time, as rows with `load` are
Loads = Callable[[], Mapping[str, Any]]  # replica -> its last load


class ModelMetrics:
    """The children of one model, looked up once: recording is one call each."""

    def __init__(self, made: Mapping[str, Any], model: str) -> None:
        labels = named(model)

        def child(name: str) -> Any:
            return made[name].labels(*labels)

        self.first_token = child("vllm:time_to_first_token_seconds")
        self.inter_token = child("vllm:inter_token_latency_seconds")
        self.whole = child("vllm:e2e_request_latency_seconds")
        self.queue = child("vllm:request_queue_time_seconds")
        self.prefill = child("vllm:request_prefill_time_seconds")
        self.decode = child("vllm:request_decode_time_seconds")
        self.prompt_tokens = child("vllm:request_prompt_tokens")
        self.output_tokens = child("vllm:request_generation_tokens")
        success = made["vllm:request_success"]
        self._finished = {why: success.labels(*labels, why) for why in ("stop", "length", "abort")}

    def finished(self, why: str) -> Any:
        """The counter of choices that ended so."""
        return self._finished[why]

    def gaps(self, seconds: float, count: int) -> None:
        """`count` tokens that each came `seconds` after the one before.

        One entry of that weight, which `Histogram.observe` has no word for.
        """
        histogram = self.inter_token
        histogram._sum.inc(seconds * count)
        histogram._buckets[bisect_left(histogram._upper_bounds, seconds)].inc(count)


class LoadCollector(Collector):
    """Reads at scrape time what the engines count, so that a gauge is as old as the last report and no older."""

    def __init__(self) -> None:
        self.followed: dict[str, tuple[Loads, Callable[[], bool]]] = {}

    def collect(self) -> Iterator[Family]:
        loads = [(model, dict(read()), ready()) for model, (read, ready) in self.followed.items()]
        for row in TABLE:
            if not (row.load or row.name in READ):
                continue
            family = (GaugeMetricFamily if row.kind == "gauge" else CounterMetricFamily)(
                row.name, meaning(row), labels=row.labels
            )
            for model, replicas, ready in loads:
                if row.name == "strata_model_ready":
                    family.add_metric(named(model), float(ready))
                    continue
                for replica, load in replicas.items():
                    family.add_metric((*named(model), replica), float(getattr(load, row.load)) if row.load else 1.0)
            yield family


class Metrics:
    """One process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        # A `_created` series beside every counter doubles a scrape and no dashboard reads it.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        kinds = {"gauge": Gauge, "counter": Counter, "histogram": Histogram}
        self._made: dict[str, Any] = {}
        for row in TABLE:
            if not (row.load or row.name in READ):
                more = {"buckets": row.buckets} if row.buckets else {}
                self._made[row.name] = kinds[row.kind](
                    row.name, meaning(row), row.labels, registry=self.registry, **more
                )
        self._loads = LoadCollector()
        self.registry.register(self._loads)
        self._models: dict[str, ModelMetrics] = {}
        self.in_flight = self._made["strata_http_requests_in_flight"]

    def model(self, name: str) -> ModelMetrics:
        """What is recorded of a model. Names come from the settings, never from a request."""
        found = self._models.get(name)
        if found is None:
            found = self._models[name] = ModelMetrics(self._made, name)
        return found

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """One HTTP request. `route` is the template and `method` a known verb, so that labels stay few."""
        self._made["strata_http_requests"].labels(route, method, str(status)).inc()
        self._made["strata_http_request_seconds"].labels(route).observe(seconds)

    def shadow(self, model: str, outcome: str, agreement: float | None = None) -> None:
        """A request that was mirrored to a version, or was to be."""
        labels = named(model)
        self._made["strata_shadows"].labels(*labels, outcome).inc()
        if agreement is not None:
            self._made["strata_shadow_agreement"].labels(*labels).observe(agreement)

    def evaluated(self, model: str, right: bool) -> None:
        """A question that a rollout is judged by was answered."""
        self._made["strata_evals"].labels(*named(model), "right" if right else "wrong").inc()

    def follow(self, model: str, loads: Loads, ready: Callable[[], bool]) -> None:
        """Show the loads of a model's replicas whenever somebody scrapes."""
        self.model(model)
        self._loads.followed[model] = (loads, ready)

    def text(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return prometheus_client.generate_latest(self.registry)


def named(model: str) -> tuple[str, str]:
    """The labels of a model, or of one version of it."""
    name, _, version = model.partition("@")
    return name, version


def meaning(row: Metric) -> str:
    """The help line."""
    return f"{row.unit} {row.meaning}"
