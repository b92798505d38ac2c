"""The decoder: embedding, layers, final norm, output (LLaMA 2.2).

Entry point: `Transformer`. Weights keep the dtype the caller gives them; nothing is cast here but inside
the norms and RoPE, so the same forward runs under FSDP2 in bfloat16. There are no buffers, so a model built
on the meta device only needs `to_empty` and `init.initialize`. Letters: B batch, T sequence, S all tokens
attended to, D model width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from criadero.model.attention import Attention, KeyValueStore
from criadero.model.config import ModelConfig
from criadero.model.feed_forward import FeedForward
from criadero.model.layout import WHOLE, Layout
from criadero.model.norm import RMSNorm
from criadero.model.rope import RopeTables, rope_tables

# Given the final hidden states (B, T, D) and the output weight (V, D), makes what the forward pass returns.
Head = Callable[[Tensor, Tensor], Any]


class TransformerLayer(nn.Module):
    """One pre-norm layer: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: ModelConfig, *, layer_index: int) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.attention = Attention(config, layer_index=layer_index)
        self.feed_forward_norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        x_BTD: Tensor,
        tables: RopeTables,
        *,
        mask_BTS: Tensor | None = None,
        cache: KeyValueStore | None = None,
    ) -> Tensor:
        """Return the residual stream (B, T, D) after this layer."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), tables, mask_BTS=mask_BTS, cache=cache)
        return x_BTD + self.feed_forward(self.feed_forward_norm(x_BTD))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """A LLaMA decoder. Fresh weights mean nothing until `init.initialize` or a load fills them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.layout: Layout = WHOLE
        self.embedding = nn.Embedding(config.vocab_size, config.dim)
        self.layers = nn.ModuleList(
            TransformerLayer(config, layer_index=index) for index in range(config.num_layers)
        )
        self.norm = RMSNorm(config.dim, eps=config.norm_eps)
        self.output = None if config.tie_embeddings else nn.Linear(config.dim, config.vocab_size, bias=False)

    @property
    def output_weight(self) -> Tensor:
        """The (V, D) matrix that turns hidden states into logits; the embedding itself when tied."""
        return self.embedding.weight if self.output is None else self.output.weight

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        positions_BT: Tensor | None = None,
        mask_BTT: Tensor | None = None,
        cache: KeyValueStore | None = None,
        head: Head | None = None,
    ) -> Any:
        """Run the decoder.

        Args:
            tokens_BT: int64 token ids.
            positions_BT: integer positions, (B, T) or (1, T); 0..T-1 if None, so tokens that
                continue a cache need them.
            mask_BTT: boolean (B, T, S), True where a token may attend, S being T plus what the cache holds;
                None is causal.
            cache: keys and values of earlier tokens; the new ones are appended.
            head: what to do with hidden states and output weight, run inside the forward pass
                because under FSDP2 the weight is whole only there; None computes logits.

        Returns:
            What `head` returns, or logits (B, T, V) in the dtype of the weights.
        """
        if positions_BT is None:
            positions_BT = torch.arange(tokens_BT.shape[1], device=tokens_BT.device).unsqueeze(0)
        tables = rope_tables(positions_BT, self.config)
        x_BTD = self.layout.embed(tokens_BT, self.embedding)
        for layer in self.layers:
            x_BTD = layer(x_BTD, tables, mask_BTS=mask_BTT, cache=cache)
        hidden_BTD = self.layout.gather(self.norm(x_BTD))
        return (head or F.linear)(hidden_BTD, self.layout.part(self.output_weight))
