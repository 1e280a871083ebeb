import pytest

from pipelines.bench.figures import Sample, percentile, summarize


def test_a_summary_leaves_failures_out_of_the_times() -> None:
    samples = [Sample(0.010, 0.110, 11), Sample(0.030, 0.230, 11), Sample(0, 0, 0, "the gang died")]
    row = summarize(2, samples, 0.5)
    assert row["failed"] == 1
    assert row["first token p50 ms"] == pytest.approx(20)
    assert row["between tokens p50 ms"] == pytest.approx(15)
    assert row["answer p50 ms"] == pytest.approx(170)
    assert row["tokens/s"] == pytest.approx(44)


def test_percentiles_of_few_values() -> None:
    assert percentile([], 50) == 0
    assert percentile([7.0], 99) == 7.0
    assert percentile([1.0, 2.0, 3.0], 50) == 2.0
