import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
import torch

from actors.models import load
from actors.quantization.measure import Wanted, measure, measured, perplexity
from actors.quantization.network import Network
from actors.quantization.picture import draw
from actors.quantization.report import Report, Side
from actors.quantization.sample import Sample, sample
from actors.quantization.sensitivity import Sensitivity, leave_alone, sensitivities
from actors.quantization.writing import Plan, write
from cluster.errors import InvalidRequest, StrataError

TOKENS = torch.randint(0, 98, (5, 33), generator=torch.Generator().manual_seed(7))
COUNTED = torch.rand(TOKENS.shape, generator=torch.Generator().manual_seed(8)) < 0.5
HELD = Sample(TOKENS, COUNTED, torch.ones_like(COUNTED))


def letters(text):
    return [ord(letter) for letter in text]


def test_texts_apart_are_filled_up_behind():
    texts = [[("a" * 90, False), ("b" * 10, True)], [("", True)], [("c" * 40, True)], [("d", True)]]
    found = sample(texts, letters, 2, 95, apart=True)
    assert found.tokens.shape == (2, 95)
    assert found.real.sum(1).tolist() == [95, 40]
    assert found.counted[0].tolist() == [False] * 90 + [True] * 5, "the rest was cut off"
    assert found.counted[1].tolist() == [True] * 40 + [False] * 55


def test_texts_together_fill_rows():
    found = sample([[("ab", True)]] * 500, letters, 3, 64, apart=False)
    assert found.tokens.shape == (3, 64)
    assert bool(found.real.all())


def test_too_little_text_is_refused():
    with pytest.raises(InvalidRequest, match="of which 3 tokens are read"):
        sample([[("abc", True)]], letters, 3, 64, apart=False)


def test_perplexity_is_that_of_transformers(small):
    said = Network(small("qwen3")).logits(TOKENS)[:, :-1].log_softmax(-1)
    each = said.gather(-1, TOKENS[:, 1:, None])[..., 0]
    wanted = float((-each[COUNTED[:, 1:]].mean()).exp())
    found = perplexity(load(small("qwen3"), dtype="float32"), TOKENS, COUNTED)
    assert found == pytest.approx(wanted, rel=1e-3)


def test_sensitivities_leave_the_network_as_it_was(small):
    network = Network(small("llama"))
    before = network.logits(TOKENS)
    heard = []
    found = sensitivities(network, HELD, "int4", progress=lambda done, total: heard.append((done, total)))
    assert torch.equal(network.logits(TOKENS), before)
    assert heard == [(number, 10) for number in range(1, 11)]
    assert [one.part for one in found[:3]] == ["embedding", "head", "qkv"]
    assert all(one.divergence > 0 for one in found)
    assert sum(one.parameters for one in found[2:6]) == 64 * (128 + 64 + 64) + 128 * 64 + 3 * 64 * 96
    fine = sensitivities(network, HELD, "int8")
    assert sum(one.divergence for one in fine) < 0.1 * sum(one.divergence for one in found)
    assert len(sensitivities(Network(small("qwen3")), HELD, "int4")) == 9, "a tied head is no part of its own"


def part(layer, divergence, parameters=100):
    return Sensitivity(layer, "down", (f"model.layers.{layer}.mlp.down_proj",), parameters, divergence)


def test_what_is_left_alone():
    calm = [part(layer, 0.01) for layer in range(20)]
    assert leave_alone(calm) == []
    worst = part(20, 0.5)
    assert leave_alone([*calm, worst]) == [worst]
    assert leave_alone([*calm, replace(worst, parameters=1000)]) == [], "it would cost a third of the weights"
    assert leave_alone([replace(one, divergence=one.divergence / 1e4) for one in [*calm, worst]]) == [], "inaudible"
    assert len(leave_alone([*calm, *(part(layer, 2.0) for layer in range(30, 34))])) <= 3, "a budget of 15 %"


@pytest.fixture
def report():
    before = Side(200, 1000, 2.0, 4.0, 99.0, 300, {"sums": 99.0}, {"1": 10.0, "8": 50.0})
    after = Side(50, 400, 1.0, 4.1, 98.0, 300, {"sums": 98.0}, {"1": 30.0, "8": 60.0})
    parts = (Sensitivity(-1, "embedding", ("embed_tokens",), 50, 1e-3), *(part(layer, 0.01) for layer in range(20)))
    return Report("a<b", "out", "int8", "rtn", 400, before, after, (*parts, part(20, 0.5)), ("lm_head",))


def test_the_table_and_the_document(report):
    rows = {row[0]: row[1:] for row in report.rows()}
    assert rows["weights"][2] == "12.5 % of float32"
    assert rows["perplexity"] == ("4.0000", "4.1000", "+2.50 %")
    assert rows["exact match"][2] == "98.99 % of before"
    assert rows["tokens/s, 1 at a time"][2] == "3.00x"
    assert rows["memory at its peak"][2] == "40 % of before"
    assert report.worst(1)[0][:2] == ("layer 20 down", "5.00e-01")
    document = json.loads(json.dumps(report.document()))
    assert document["leave_alone"] == ["layer 20 down"]
    assert document["ignore"] == ["model.layers.20.mlp.down_proj"]
    assert document["after"]["tasks"] == {"sums": 98.0}
    unasked = replace(report, before=replace(report.before, exact_match=None))
    assert "exact match" not in {row[0] for row in unasked.rows()}


def test_a_text_that_the_model_does_not_know(report):
    assert report.knows_text
    assert replace(report, vocabulary=5).knows_text
    assert not replace(report, vocabulary=4).knows_text


def test_the_picture(report):
    drawn = ET.fromstring(draw(report))
    words = ["".join(text.itertext()) for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert words[0] == "a<b to int8 by rtn"
    assert {"weights, MB", "exact match, %", "tokens/s, 8 at a time", "layer 20", "embedding", "5.0e-01"} <= set(words)
    framed = [one for one in drawn.iter() if one.get("stroke-width") == "2"]
    assert len(framed) == 1
    ET.fromstring(draw(replace(report, sensitivities=())))


def test_measuring_runs_in_a_process_of_its_own(small, tmp_path):
    write(small("qwen3"), tmp_path, Plan("int8"))
    wanted = Wanted(str(tmp_path), "float32", TOKENS.tolist(), COUNTED.tolist())
    found = measured(wanted)
    assert found.perplexity == pytest.approx(measure(wanted).perplexity, rel=1e-5)
    assert 0 <= found.peak_bytes < 200e6
    assert found.answers == []


def test_what_fails_there_is_said_here(tmp_path):
    with pytest.raises(StrataError, match=r"measuring .* failed: .*config\.json"):
        measured(Wanted(str(tmp_path), "float32", TOKENS.tolist(), COUNTED.tolist()))
