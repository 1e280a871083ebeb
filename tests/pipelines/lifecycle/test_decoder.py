import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from pipelines.lifecycle.decoder import Decoder, Shape

SMALL = Shape(vocab_size=96, width=32, layers=2, heads=4, kv_heads=2, head_width=16, hidden=48, context_tokens=64)


@pytest.fixture
def decoder():
    torch.manual_seed(0)
    model = Decoder(SMALL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def test_it_computes_what_hugging_face_computes(decoder):
    theirs = Qwen3ForCausalLM(Qwen3Config(**SMALL.hugging_face(0, 2), attn_implementation="eager")).float().eval()
    missing, unexpected = theirs.load_state_dict(decoder.state_dict(), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    theirs.tie_weights()
    tokens = torch.randint(0, 96, (2, 40))
    with torch.no_grad():
        ours = decoder.logits(tokens, torch.zeros_like(tokens))
        assert torch.allclose(ours, theirs(tokens).logits, atol=1e-5)


def test_a_segment_reads_as_if_it_were_alone(decoder):
    tokens = torch.randint(0, 96, (1, 30))
    segments = torch.tensor([[0] * 12 + [1] * 18])
    with torch.no_grad():
        packed = decoder.logits(tokens, segments)[:, 12:]
        alone = decoder.logits(tokens[:, 12:], torch.zeros(1, 18, dtype=torch.long))
    assert torch.allclose(packed, alone, atol=1e-5)


def test_the_loss_is_the_weighted_mean_at_its_places(decoder):
    tokens = torch.randint(0, 96, (2, 10))
    segments = torch.zeros_like(tokens)
    places, targets, weights = torch.tensor([3, 14, 0]), torch.tensor([5, 7, 0]), torch.tensor([1.0, 3.0, 0.0])
    with torch.no_grad():
        loss = decoder(tokens, segments, places, targets, weights)
        logs = decoder.logits(tokens, segments).log_softmax(-1)
    assert torch.allclose(loss, -(logs[0, 3, 5] + 3 * logs[1, 4, 7]) / 4, atol=1e-5)
