"""Continuations: equal to full recomputation, repeatable, cut where they should be."""

import itertools

import pytest
import torch

from criadero.errors import DataError, FormatError, NumericsError
from criadero.generate.engine import Generator
from criadero.generate.sampling import SamplingConfig, new_generator, sample
from generate.tiny_model import BOS, END, EOS, ScriptedModel, byte_tokenizer, tiny_model

PROMPT = [BOS, *b"odd prompt"]


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator(tiny_model(), byte_tokenizer())


def scripted(text: bytes) -> Generator:
    """A generator whose model says `text` byte by byte and then the end token, whatever the prompt."""
    return Generator(ScriptedModel([*text, EOS]), byte_tokenizer())


def recompute(model, prompt, options, count, vocab_size=259):
    """Tokens by running the model over everything again for each one."""
    ids, random = list(prompt), new_generator(options.seed)
    with torch.inference_mode():
        for _ in range(count):
            logits = model(torch.tensor([ids]))[:, -1, :vocab_size]
            ids.append(sample(logits.float(), options, random).item())
    return ids[len(prompt) :]


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0}, {"temperature": 1.3, "seed": 9}, {"temperature": 0.9, "top_p": 0.8, "seed": 2}],
    ids=str,
)
def test_cached_generation_equals_full_recomputation_token_for_token(generator, options):
    sampling = SamplingConfig(max_tokens=60, **options)
    completion = generator.generate(PROMPT, sampling, end_ids=())
    expected = recompute(generator.model, PROMPT, sampling, 60)
    assert list(completion.ids) == expected
    assert len(set(expected)) > 5  # a model stuck on one token would prove nothing


def test_logprobs_are_those_of_the_unfiltered_model(generator):
    sampling = SamplingConfig(max_tokens=5, temperature=0.5, top_k=3, seed=1)
    tokens = list(generator.stream(PROMPT, sampling, end_ids=()))
    ids = [*PROMPT, *(token.id for token in tokens)]
    with torch.inference_mode():
        logits_TV = generator.model(torch.tensor([ids]))[0].double()
    for place, token in enumerate(tokens, len(PROMPT) - 1):
        expected = (logits_TV[place, token.id] - logits_TV[place].logsumexp(0)).item()
        assert token.logprob == pytest.approx(expected, abs=1e-3)


def test_the_same_seed_gives_the_same_text_whatever_the_global_generator(generator):
    sampling = SamplingConfig(max_tokens=25, temperature=1.5, seed=7)
    torch.manual_seed(1)
    first = generator.generate(PROMPT, sampling)
    torch.manual_seed(2)
    assert generator.generate(PROMPT, sampling).ids == first.ids
    other = generator.generate(PROMPT, SamplingConfig(max_tokens=25, temperature=1.5, seed=8))
    assert other.ids != first.ids


def test_the_seed_of_an_unseeded_completion_repeats_it(generator):
    first = generator.generate(PROMPT, SamplingConfig(max_tokens=20, temperature=1.5))
    again = generator.generate(PROMPT, SamplingConfig(max_tokens=20, temperature=1.5, seed=first.seed))
    assert again.ids == first.ids


def test_the_text_is_that_of_all_tokens_at_once(generator):
    completion = generator.generate(PROMPT, SamplingConfig(max_tokens=70, temperature=2, seed=3), end_ids=())
    whole = generator.tokenizer.decode(completion.ids)
    # Only a character cut off at the very end may be missing.
    assert whole.startswith(completion.text)
    assert set(whole[len(completion.text) :]) <= {"\ufffd"}


def test_emoji_split_across_tokens_stream_as_whole_characters():
    text = "a🤷🏽‍♂️b€"
    pieces = [token.text for token in scripted(text.encode()).stream(PROMPT, SamplingConfig(temperature=0))]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert pieces[1:5] == ["", "", "", "🤷"]


def test_a_character_that_the_limit_cuts_in_half_is_left_out():
    completion = scripted("ab🤷".encode()).generate(PROMPT, SamplingConfig(temperature=0, max_tokens=4))
    assert (completion.text, completion.finish_reason) == ("ab", "length")
    assert len(completion.ids) == 4


def test_bytes_that_are_no_text_show_as_replacement_characters():
    completion = scripted(b"a\xf0\x9fb\xe2").generate(PROMPT, SamplingConfig(temperature=0))
    assert completion.text == b"a\xf0\x9fb\xe2".decode(errors="replace")


def test_a_stop_string_across_tokens_ends_the_text_before_it():
    generator = scripted(b"one two END three")
    tokens = list(generator.stream(PROMPT, SamplingConfig(temperature=0, stop=["END", "never"])))
    assert "".join(token.text for token in tokens) == "one two "
    assert tokens[-1].finish_reason == "stop"
    assert bytes(token.id for token in tokens) == b"one two END"


def test_no_part_of_a_stop_string_is_ever_emitted_and_false_starts_are():
    tokens = scripted(b"ENEND").stream(PROMPT, SamplingConfig(temperature=0, stop=["END"]))
    assert [token.text for token in tokens] == ["", "", "EN", "", ""]


def test_held_back_text_comes_out_when_the_limit_or_the_end_token_comes():
    for limit, reason in [(3, "length"), (9, "stop")]:
        options = SamplingConfig(temperature=0, stop=["END"], max_tokens=limit)
        completion = scripted(b"xEN").generate(PROMPT, options)
        assert (completion.text, completion.finish_reason) == ("xEN", reason)


def test_the_end_token_ends_the_text_and_has_none():
    completion = scripted(b"bye").generate(PROMPT, SamplingConfig(temperature=0))
    assert (completion.text, completion.finish_reason) == ("bye", "stop")
    assert completion.ids == (*b"bye", EOS)
    assert completion.completion_tokens == 4
    assert completion.prompt_tokens == len(PROMPT)
    assert completion.seed is None


def test_other_end_tokens_can_be_named():
    completion = scripted(bytes([*b"hi", 10])).generate(PROMPT, SamplingConfig(temperature=0), end_ids={10})
    assert (completion.text, completion.finish_reason) == ("hi", "stop")
    assert END not in completion.ids


def test_a_blank_that_opens_the_continuation_is_kept():
    assert scripted(b" next word").generate(PROMPT, SamplingConfig(temperature=0)).text == " next word"


def test_a_prompt_longer_than_the_context_is_refused_naming_both_numbers(generator):
    for length in (96, 200):
        with pytest.raises(DataError, match=rf"{length} tokens.*holds 96"):
            generator.generate([BOS] * length, SamplingConfig())


def test_the_context_ends_the_text_when_the_token_limit_does_not(generator):
    completion = generator.generate(
        [BOS] * 90, SamplingConfig(temperature=1, seed=0, max_tokens=500), end_ids=()
    )
    assert completion.completion_tokens == 6
    assert completion.finish_reason == "length"


def test_prompts_that_cannot_be_are_refused(generator):
    with pytest.raises(DataError, match="no tokens"):
        generator.generate([], SamplingConfig())
    for wrong in (-1, 261):
        with pytest.raises(DataError, match=f"id {wrong}"):
            generator.generate([BOS, wrong], SamplingConfig())


def test_ids_that_only_pad_the_vocabulary_are_never_chosen():
    model = tiny_model(vocab_size=320)
    completion = Generator(model, byte_tokenizer()).generate(
        PROMPT, SamplingConfig(temperature=100, seed=0, max_tokens=80), end_ids=()
    )
    assert max(completion.ids) < 259


def test_a_tokenizer_with_more_ids_than_the_model_is_refused():
    with pytest.raises(FormatError, match=r"259 ids, the model 100"):
        Generator(tiny_model(vocab_size=100), byte_tokenizer())


def test_a_model_that_gives_no_numbers_is_an_error():
    model = tiny_model()
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    for temperature in (0, 1):
        with pytest.raises(NumericsError, match="not finite"):
            Generator(model, byte_tokenizer()).generate(PROMPT, SamplingConfig(temperature=temperature))


def test_a_stream_that_is_closed_computes_nothing_more(generator):
    stream = generator.stream(PROMPT, SamplingConfig(max_tokens=50, seed=0))
    assert len(list(itertools.islice(stream, 3))) == 3
    stream.close()
    assert list(stream) == []


def test_each_token_runs_the_model_once_on_one_position(monkeypatch):
    monkeypatch.setattr("criadero.generate.engine.cpu_decoder", lambda *_: None)
    generator = Generator(tiny_model(), byte_tokenizer())
    lengths = []
    hook = generator.model.embedding.register_forward_hook(lambda m, args, out: lengths.append(args[0].shape))
    try:
        generator.generate(PROMPT, SamplingConfig(max_tokens=4, temperature=0), end_ids=())
    finally:
        hook.remove()
    assert lengths == [(1, len(PROMPT)), (1, 1), (1, 1), (1, 1)]


def test_settings_without_effect_are_said_once(generator, caplog, monkeypatch):
    monkeypatch.setattr("criadero.notices._said", set())
    for _ in range(2):
        generator.generate(PROMPT, SamplingConfig(temperature=0, top_k=3, max_tokens=1))
    assert caplog.text.count("top_k have no effect") == 1


def test_an_empty_prompt_begins_with_the_begin_token(generator):
    assert generator.encode("") == [BOS]


def test_bfloat16_weights_generate_too():
    model = tiny_model().to(torch.bfloat16)
    completion = Generator(model, byte_tokenizer()).generate(
        PROMPT, SamplingConfig(temperature=0, max_tokens=12), end_ids=()
    )
    assert completion.completion_tokens == 12
    assert completion.tokens_per_second > 0
