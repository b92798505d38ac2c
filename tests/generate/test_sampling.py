"""The filters against naive references that go through the vocabulary token by token."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero import config
from criadero.errors import ConfigError
from criadero.generate.sampling import (
    SamplingConfig,
    filtered_probabilities,
    new_generator,
    penalised,
    sample,
    sample_rows,
)


def naive_filter(logits: list[float], *, temperature=1.0, top_k=None, top_p=1.0, min_p=0.0) -> list[float]:
    """Probabilities after the filters, tokens equal to the last one kept being kept too."""
    logits = [value / temperature for value in logits]
    if top_k is not None:
        border = sorted(logits, reverse=True)[min(top_k, len(logits)) - 1]
        logits = [value if value >= border else -math.inf for value in logits]
    greatest = max(logits)
    weights = [math.exp(value - greatest) for value in logits]
    probs = [weight / sum(weights) for weight in weights]
    mass = 0.0
    for border in sorted(probs, reverse=True):
        mass += border
        if mass >= top_p:
            break
    probs = [prob if top_p == 1 or prob >= border else 0.0 for prob in probs]
    return [prob if prob >= min_p * max(probs) else 0.0 for prob in probs]


OPTIONS = [
    {},
    {"temperature": 0.3},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 5000},
    {"top_p": 1e-9},
    {"top_p": 0.55},
    {"top_p": 0.999},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.02},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("vocab_size", [3, 37, 2011])
def test_each_filter_equals_the_naive_one(options, vocab_size):
    logits_BV = torch.randn(2, vocab_size, generator=torch.Generator().manual_seed(vocab_size)) * 3
    result_BV = filtered_probabilities(logits_BV, SamplingConfig(**{"temperature": 1.0, **options}))
    for row, result in zip(logits_BV.tolist(), result_BV.tolist(), strict=True):
        expected = naive_filter(row, **options)
        assert result == pytest.approx(expected, abs=1e-6)
        assert [value > 0 for value in result] == [value > 0 for value in expected]


def test_top_p_of_a_flat_distribution_needs_more_than_the_usual_candidates():
    logits_BV = torch.linspace(0, 0.01, 4001).unsqueeze(0)
    kept = (filtered_probabilities(logits_BV, SamplingConfig(temperature=1, top_p=0.9)) > 0).sum().item()
    expected = sum(value > 0 for value in naive_filter(logits_BV[0].tolist(), top_p=0.9))
    assert kept == pytest.approx(expected, abs=1)  # float32 against float64 sums at the border


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=30),
    st.floats(1e-3, 10),
    st.integers(1, 40),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.integers(0, 2**63 - 1),
)
def test_a_draw_is_always_one_of_the_tokens_kept(logits, temperature, top_k, top_p, min_p, seed):
    options = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    logits_BV = torch.tensor([logits])
    (token,) = sample(logits_BV, options, new_generator(seed)).tolist()
    assert filtered_probabilities(logits_BV, options)[0, token] > 0


def test_temperature_0_takes_the_most_likely_token_and_draws_nothing():
    generator = new_generator(3)
    state = generator.get_state()
    logits_BV = torch.tensor([[0.1, 7.0, -1.0], [5.0, 4.0, 4.9]])
    assert sample(logits_BV, SamplingConfig(temperature=0), generator).tolist() == [1, 0]
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("temperature", [1e-300, 1e-5])
def test_a_tiny_temperature_is_as_good_as_greedy(temperature):
    logits_BV = torch.tensor([[1000.0, 1001.0, -500.0]])
    assert sample(logits_BV, SamplingConfig(temperature=temperature), new_generator(0)).tolist() == [1]


def test_draws_follow_the_distribution():
    probs = torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05])
    logits_BV = probs.log().expand(20_000, 5)
    ids = sample(logits_BV, SamplingConfig(temperature=1), new_generator(11))
    shares = torch.bincount(ids, minlength=5) / len(ids)
    assert shares[1] == 0
    assert torch.allclose(shares, probs, atol=0.012)  # about 3.4 standard deviations of the commonest


def test_the_seed_alone_decides_and_the_global_generator_is_left_alone():
    logits_BV = torch.zeros(50, 1000)
    options = SamplingConfig(temperature=1)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = sample(logits_BV, options, new_generator(42))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(sample(logits_BV, options, new_generator(42)), first)
    assert not torch.equal(sample(logits_BV, options, new_generator(43)), first)
    assert not torch.equal(
        sample(logits_BV, options, new_generator(None)), sample(logits_BV, options, new_generator(None))
    )


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_k": 0},
        {"min_p": -0.1},
        {"max_tokens": 0},
        {"seed": -1},
        {"presence_penalty": 2.1},
        {"frequency_penalty": -3},
        {"stop": [""]},
        {"stop": ["x"] * 17},
        {"topp": 0.5},
    ],
    ids=str,
)
def test_values_out_of_bounds_are_refused_by_name(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        config.validate(SamplingConfig, values, where="the options")


def test_settings_that_greedy_decoding_ignores_are_named():
    assert SamplingConfig(temperature=0, seed=1, top_p=0.5).without_effect == ("seed", "top_p")
    assert SamplingConfig(temperature=0).without_effect == ()
    assert SamplingConfig(temperature=1, seed=1).without_effect == ()


def test_rows_are_sampled_by_their_own_settings_as_if_they_were_alone():
    logits_BV = torch.randn(7, 301, generator=torch.Generator().manual_seed(0)) * 2
    alike = {"temperature": 1.1, "top_p": 0.9}
    options = [
        {"temperature": 0},
        {**alike, "seed": 1},
        {"temperature": 2, "top_k": 9, "seed": 2},
        {**alike, "seed": 3},
        {"temperature": 0},
        {"min_p": 0.1, "seed": 4},
        {**alike, "seed": 5, "max_tokens": 3},
    ]
    configs = [SamplingConfig(**values) for values in options]
    together = sample_rows(logits_BV, configs, [new_generator(config.seed) for config in configs])
    alone = [sample(row[None], c, new_generator(c.seed)) for row, c in zip(logits_BV, configs, strict=True)]
    assert together.tolist() == torch.cat(alone).tolist()
    assert together[[0, 4]].tolist() == logits_BV[[0, 4]].argmax(-1).tolist()


def test_penalties_and_bias_are_added_up():
    logits_V = torch.tensor([1.0, 2.0, 3.0, 4.0])
    config = SamplingConfig(presence_penalty=0.5, frequency_penalty=-0.25)
    result = penalised(logits_V, config=config, counts={1: 1, 3: 4}, bias={3: 1.0, 0: -100.0})
    assert result.tolist() == [-99.0, 1.75, 3.0, 5.5]
    assert logits_V.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert torch.equal(penalised(logits_V, config=config, counts={}, bias={}), logits_V)
