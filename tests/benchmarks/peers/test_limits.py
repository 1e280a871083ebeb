import shutil

import pytest

from benchmarks.peers.limits import Probe, Work, limits, work

CONFIG = {
    "hidden_size": 768, "num_hidden_layers": 14, "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 64,
    "intermediate_size": 2432, "vocab_size": 32000,
}  # fmt: skip
RATES = {"stream_gb": 40.0, "float32_gflops": 500.0, "bf16_gflops": 1000.0, "int8_gops": 2000.0}


def test_the_work_is_that_of_all_matrices() -> None:
    found = work(CONFIG)
    assert found.layers == 14 * (768 * 64 * (12 + 4 + 4 + 12) + 3 * 768 * 2432)
    assert found.head == 768 * 32000
    assert found.bytes("none") / 1e6 == pytest.approx(250, abs=5)


def test_batch_1_is_bound_by_bytes_and_prefill_by_products() -> None:
    model = Work(layers=100_000_000, head=25_000_000)
    found = limits(model, "none", RATES)
    assert found["b1"] == pytest.approx(160, rel=0.1), "40 GB/s over 250 MB"
    assert found["prefill"] == pytest.approx(1e12 / 2e8, rel=0.01)
    assert limits(model, "int8", RATES)["b1"] > 1.8 * found["b1"]
    assert limits(model, "int8", RATES)["prefill"] == pytest.approx(2 * found["prefill"], rel=0.01)


def test_a_machine_without_bytes_multiplies_floats() -> None:
    bare = {**RATES, "bf16_gflops": 0.0, "int8_gops": 0.0}
    assert limits(Work(10**8, 10**7), "int8", bare)["prefill"] == pytest.approx(500e9 / 2e8, rel=0.02)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a compiler")
def test_the_probe_checks_its_own_sums() -> None:
    probe = Probe()
    found = probe.rates(1, 4e6)
    assert found is not None
    assert 0.1 < found["stream_gb"] < 2000, "a loop whose loads are removed reports terabytes a second"
    for rate in ("float32_gflops", "bf16_gflops", "int8_gops"):
        assert 0 <= found[rate] < 1e6, "as above: what else runs on the machine only makes it less"
    assert isinstance(probe.steady(), bool)


def test_without_a_compiler_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert Probe().rates(2, 1e6) is None
    assert Probe().steady()
