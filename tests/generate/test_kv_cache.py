"""The cache gives back what was stored, and cached passes equal whole ones."""

import pytest
import torch

from criadero.generate.kv_cache import KVCache
from generate.tiny_model import tiny_model


def test_the_cache_returns_all_tokens_so_far_in_order():
    config = tiny_model().config
    cache = KVCache(config, max_len=9, batch_size=2, dtype=torch.float32)
    parts = [torch.randn(2, 2, length, 4) for length in (5, 1, 3)]
    for part in parts:
        for layer in range(config.num_layers):
            keys, values = cache.update(layer, part + layer, -part)
        assert cache.length == keys.shape[2]
    assert torch.equal(keys, torch.cat(parts, dim=2) + 2)
    assert torch.equal(values, -torch.cat(parts, dim=2))
    assert torch.equal(cache.keys_LBKSE[0], torch.cat(parts, dim=2))


@pytest.mark.parametrize("cuts", [[7], [1] * 7, [3, 4], [5, 1, 1]])
def test_logits_through_the_cache_equal_those_of_one_pass(cuts):
    model = tiny_model()
    tokens_BT = torch.randint(0, 261, (2, 7), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole_BTV = model(tokens_BT)
        cache = KVCache(model.config, max_len=7, batch_size=2, dtype=torch.float32)
        parts = []
        for part in tokens_BT.split(cuts, dim=1):
            positions = torch.arange(cache.length, cache.length + part.shape[1]).unsqueeze(0)
            parts.append(model(part, positions_BT=positions, cache=cache))
    assert torch.allclose(torch.cat(parts, dim=1), whole_BTV, atol=2e-4, rtol=1e-4)


def test_more_tokens_than_there_is_room_for_are_a_mistake_of_the_program():
    cache = KVCache(tiny_model().config, max_len=2, dtype=torch.float32)
    with pytest.raises(AssertionError):
        cache.update(0, torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
