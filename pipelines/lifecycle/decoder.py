"""The starter model as it is trained: a decoder of the Qwen3 shape over packed rows.

Owns the forward pass, the loss and the weights' names, which are those of Hugging Face's Qwen3ForCausalLM, so that
its state dict is a model folder as it stands. Knows nothing of optimizers, tokenizers or serving.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the decoder is. The defaults make about 6 million parameters."""

    vocab_size: int = 3072
    width: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head_width: int = 64
    hidden: int = 768
    context_tokens: int = 1024
    rope_theta: float = 10_000.0
    epsilon: float = 1e-6

    def hugging_face(self, pad_token: int, end_token: int) -> dict[str, Any]:
        """The config.json of this shape."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "eos_token_id": end_token,
            "pad_token_id": pad_token,
            "head_dim": self.head_width,
            "hidden_act": "silu",
            "hidden_size": self.width,
            "initializer_range": 0.02,
            "intermediate_size": self.hidden,
            "max_position_embeddings": self.context_tokens,
            "num_attention_heads": self.heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": self.kv_heads,
            "rms_norm_eps": self.epsilon,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "rope_theta": self.rope_theta,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "dtype": "bfloat16",
            "use_cache": True,
            "use_sliding_window": False,
            "vocab_size": self.vocab_size,
        }


class Norm(nn.Module):
    """Root-mean-square normalization over the last dimension (arXiv:1910.07467), computed in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return self.weight * scaled.to(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with normalized queries and keys; plain matrix products.

    On a CPU in bfloat16 they beat PyTorch's fused attention by a factor of two at 256 tokens a row.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.width, shape.heads * shape.head_width, bias=False)
        self.k_proj = nn.Linear(shape.width, shape.kv_heads * shape.head_width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.kv_heads * shape.head_width, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_width, shape.width, bias=False)
        self.q_norm = Norm(shape.head_width, shape.epsilon)
        self.k_norm = Norm(shape.head_width, shape.epsilon)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        rows, tokens, _ = x.shape
        shape = self.shape
        group = shape.heads // shape.kv_heads
        q = rotate(self.q_norm(self.q_proj(x).view(rows, tokens, shape.heads, -1)).transpose(1, 2), turn)
        k = rotate(self.k_norm(self.k_proj(x).view(rows, tokens, shape.kv_heads, -1)).transpose(1, 2), turn)
        v = self.v_proj(x).view(rows, tokens, shape.kv_heads, -1).transpose(1, 2)
        q = q.reshape(rows, shape.kv_heads, group * tokens, -1)  # the queries of a group share one product
        scores = (q @ k.transpose(-1, -2)).view(rows, shape.kv_heads, group, tokens, tokens)
        weights = torch.softmax(scores.float() / math.sqrt(shape.head_width) + mask, -1).to(x.dtype)
        mixed = weights.view(rows, shape.kv_heads, group * tokens, tokens) @ v
        out: Tensor = self.o_proj(mixed.view(rows, shape.heads, tokens, -1).transpose(1, 2).reshape(rows, tokens, -1))
        return out


class FeedForward(nn.Module):
    """The gated feed-forward layer, SwiGLU (arXiv:2002.05202)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.up_proj = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down_proj = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """Attention, then feed-forward, each normalized before and added to what came in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = Norm(shape.width, shape.epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = Norm(shape.width, shape.epsilon)
        self.mlp = FeedForward(shape)

    def forward(self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), turn, mask)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class Trunk(nn.Module):
    """Embedding, layers and the last normalization."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = Norm(shape.width, shape.epsilon)
        self.shape = shape

    def forward(self, tokens: Tensor, segments: Tensor) -> Tensor:
        x = self.embed_tokens(tokens)
        turn = angles(tokens.shape[1], self.shape, x)
        mask = segment_mask(segments)
        for layer in self.layers:
            x = layer(x, turn, mask)
        out: Tensor = self.norm(x)
        return out


class Decoder(nn.Module):
    """The trainable model. The output layer is the embedding, transposed."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.model = Trunk(shape)
        self.apply(initialize)
        for layer in self.model.layers:  # GPT-2's scaling of what is added to the residual stream
            for matrix in (layer.self_attn.o_proj, layer.mlp.down_proj):  # type: ignore[union-attr]
                nn.init.normal_(matrix.weight, std=0.02 / math.sqrt(2 * shape.layers))  # type: ignore[union-attr,arg-type]

    def logits(self, tokens: Tensor, segments: Tensor) -> Tensor:
        """[rows, tokens, vocabulary] of packed rows."""
        return F.linear(self.model(tokens, segments), self.model.embed_tokens.weight)

    def forward(self, tokens: Tensor, segments: Tensor, places: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """The weighted mean loss at `places` (indices into the flattened rows), whose next tokens are `targets`."""
        hidden = self.model(tokens, segments).flatten(0, 1)[places]
        logits = F.linear(hidden, self.model.embed_tokens.weight).float()
        loss = F.cross_entropy(logits, targets, reduction="none")
        return (loss * weights).sum() / weights.sum().clamp_min(1e-6)


def initialize(module: nn.Module) -> None:
    """Normal weights of 0.02, GPT-2's, which suits widths of a few hundred."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)


def angles(tokens: int, shape: Shape, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines [tokens, head width] of rotary embedding (arXiv:2104.09864), in halves."""
    steps = torch.arange(0, shape.head_width, 2, dtype=torch.float32, device=like.device) / shape.head_width
    turns = torch.arange(tokens, dtype=torch.float32, device=like.device)[:, None] * shape.rope_theta**-steps
    turns = torch.cat((turns, turns), -1)
    return turns.cos().to(like.dtype), turns.sin().to(like.dtype)


def rotate(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair of `x` [rows, heads, tokens, width] by its position's angle."""
    left, right = x.chunk(2, -1)
    return x * turn[0] + torch.cat((-right, left), -1) * turn[1]


def segment_mask(segments: Tensor) -> Tensor:
    """[rows, 1, 1, tokens, tokens]: 0 where a token may look, a very low number where it may not.

    A token sees what came before it in its own segment. Rotary positions are relative, so that a conversation in
    the middle of a row reads like one at its start.
    """
    same = segments[:, :, None] == segments[:, None, :]
    before = torch.ones(same.shape[1:], dtype=torch.bool, device=segments.device).tril()
    return torch.where(same & before, 0.0, -1e9)[:, None, None]
