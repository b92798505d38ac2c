"""Batched continuations: equal to those made one by one, whatever joins, leaves or is set back."""

import re

import pytest
import torch

from criadero.errors import DataError, NumericsError, ResourceError, UsageError
from criadero.generate.cuda_decode import GraphDecoder
from criadero.generate.engine import Engine, Generator, Request, Ticket
from criadero.generate.sampling import SamplingConfig
from criadero.model.config import ModelConfig
from criadero.model.init import initialize
from criadero.model.quantized import quantize
from criadero.model.transformer import Transformer
from generate.tiny_model import BOS, byte_tokenizer, run_again, tiny_model

CONTEXT = 256
ANSWERS = (100, 90, 17, 33, 25, 1, 48)
HEAD = [BOS, *b"You are a model of three layers. Answer in bytes, and do not stop before you are told to."]


@pytest.fixture(params=["torch", "kernel", "graph"])
def _each_decoder(request, monkeypatch):
    """Decode by the model itself, by the C++ kernel, which has to be there, and as by CUDA graphs."""
    if request.param != "kernel":
        monkeypatch.setattr("criadero.generate.engine.cpu_decoder", lambda *_: None)
    if request.param == "graph":
        monkeypatch.setattr("criadero.generate.engine.graph_decoder", replayed)
    if request.param != "torch":
        monkeypatch.setattr("criadero.generate.engine.TorchDecoder", None)


def replayed(model, cache) -> GraphDecoder:
    return GraphDecoder(model, cache, capture=run_again, compiled=False)


def engine_of(model=None, **options) -> Engine:
    options = {"cache_tokens": 4096, **options} if "cache_bytes" not in options else options
    return Engine(model or tiny_model(max_seq_len=CONTEXT), byte_tokenizer(), **options)


def greedy(prompt, tokens=24, **options) -> Request:
    return Request(prompt, SamplingConfig(temperature=0, max_tokens=tokens), end_ids=(), **options)


def seeded(prompt, seed, tokens=24, **options) -> Request:
    return Request(
        prompt, SamplingConfig(temperature=1.2, seed=seed, max_tokens=tokens, **options), end_ids=()
    )


def run(engine: Engine, requests, *, apart=0) -> list[list]:
    """Submit requests `apart` steps from each other, run all to their ends, return their tokens."""
    tokens: dict[Ticket, list] = {}
    waiting, step = list(requests), 0
    while waiting or engine.has_work:
        while waiting and (apart == 0 or step % apart == 0):
            tokens[engine.submit(waiting.pop(0))] = []
            if apart:
                break
        for ticket, token in engine.step():
            tokens[ticket].append(token)
        engine._cache.check(tables_of(engine))
        step += 1
    return list(tokens.values())


def tables_of(engine: Engine):
    reading = [engine._reading] if engine._reading else []
    return [sequence.table for sequence in (*engine._decoding, *reading, *engine._waiting)]


def ids_of(results) -> list[list[int]]:
    return [[token.id for token in tokens] for tokens in results]


def naive(model, request: Request) -> list[int]:
    """Greedy tokens by running the model over everything again for each one."""
    ids = list(request.prompt_ids)
    with torch.inference_mode():
        for _ in range(request.sampling.max_tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1, :259].argmax()))
    return ids[len(request.prompt_ids) :]


def various_requests() -> list[Request]:
    """Prompts of 1 to 130 tokens, some with a common beginning, one twice; answers of 1 to 100."""
    prompts = [
        [BOS],
        [BOS, *b"odd prompt"],
        [*HEAD, *b" One."],
        [*HEAD, *b" Two, and longer than the first by far."],
        [*HEAD, *b" One."],
        [BOS, *range(32, 63)],
        [BOS, *b"x" * 64],
    ]
    return [greedy(prompt, tokens) for prompt, tokens in zip(prompts, ANSWERS, strict=True)]


@pytest.fixture(scope="module")
def expected() -> list[list[int]]:
    model = tiny_model(max_seq_len=CONTEXT)
    return [naive(model, request) for request in various_requests()]


@pytest.mark.usefixtures("_each_decoder")
@pytest.mark.parametrize("apart", [0, 3])
@pytest.mark.parametrize("cache_tokens", [2048, 192], ids=["roomy", "tight"])
@pytest.mark.parametrize("prefill_tokens", [256, 7])
def test_batched_greedy_equals_one_by_one_token_for_token(expected, apart, cache_tokens, prefill_tokens):
    engine = engine_of(cache_tokens=cache_tokens, prefill_tokens=prefill_tokens)
    assert ids_of(run(engine, various_requests(), apart=apart)) == expected
    assert engine.free_tokens == cache_tokens
    assert cache_tokens == 2048 or engine.counts.preempted > 0
    assert engine.counts.reused >= len(HEAD) // 32 * 32


def test_the_generator_gives_the_same_tokens_as_the_engine(expected):
    generator = Generator(tiny_model(max_seq_len=CONTEXT), byte_tokenizer())
    for request, ids in zip(various_requests(), expected, strict=True):
        completion = generator.generate(request.prompt_ids, request.sampling, end_ids=())
        assert list(completion.ids) == ids


def test_streams_of_one_generator_can_be_read_in_turns(expected):
    generator = Generator(tiny_model(max_seq_len=CONTEXT), byte_tokenizer())
    requests = various_requests()[1:4]
    streams = [generator.stream(r.prompt_ids, r.sampling, end_ids=()) for r in requests]
    firsts = [[next(stream).id for _ in range(5)] for stream in streams]
    rests = [[token.id for token in stream] for stream in reversed(streams)][::-1]
    assert [a + b for a, b in zip(firsts, rests, strict=True)] == expected[1:4]


def test_bfloat16_sequences_are_decoded_together():
    engine = engine_of(tiny_model(max_seq_len=CONTEXT).to(torch.bfloat16))
    results = run(engine, various_requests())
    assert [len(tokens) for tokens in results] == list(ANSWERS)


def quantised_model() -> Transformer:
    model = Transformer(
        ModelConfig(
            vocab_size=261,
            dim=32,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            hidden_dim=48,
            max_seq_len=CONTEXT,
        )
    )
    initialize(model, 3)
    for module in [m for m in model.modules() if isinstance(m, torch.nn.Linear | torch.nn.Embedding)]:
        codes = quantize(module.weight.detach() * 15, bits=8, group=16)
        module.weight = torch.nn.Parameter(codes, requires_grad=False)
    return model


def test_quantised_sequences_are_the_same_to_the_bit_however_they_are_cut_and_batched():
    model = quantised_model()
    alone = [run(engine_of(model), [request])[0] for request in various_requests()]
    engine = engine_of(model, cache_tokens=192, prefill_tokens=13)
    assert run(engine, various_requests(), apart=2) == alone
    assert engine._reads_by_step
    assert engine.counts.preempted > 0
    assert engine.counts.reused > 0


# What is shared


def test_a_second_request_reads_only_what_follows_the_shared_beginning():
    engine = engine_of()
    run(engine, [greedy([*HEAD, *b" One."], 2)])
    before = engine.counts.prefilled
    ticket = engine.submit(greedy([*HEAD, *b" Another question."], 2))
    while engine.has_work:
        engine.step()
    shared = len(HEAD) // 32 * 32
    assert engine.counts.prefilled - before == len(HEAD) + len(b" Another question.") - shared
    assert ticket.reused_tokens == shared


@pytest.mark.parametrize("length", [64, 70, 95])
def test_samples_of_one_prompt_read_it_once(length):
    engine = engine_of(prefill_tokens=32)
    prompt = ([*HEAD] * 2)[:length]
    results = run(engine, [seeded(prompt, seed, 10) for seed in range(5)])
    # The others run the prompt's last token again, for its logits.
    assert engine.counts.prefilled == length
    assert engine.counts.decoded == 9 + 4 * 10
    assert ids_of(results) == [ids_of(run(engine_of(), [seeded(prompt, n, 10)]))[0] for n in range(5)]
    assert len({tuple(ids) for ids in ids_of(results)}) == 5


def test_an_answer_is_found_again_as_part_of_the_next_prompt():
    engine = engine_of()
    (tokens,) = run(engine, [greedy(HEAD, 60)])
    ticket = engine.submit(greedy([*HEAD, *(token.id for token in tokens), *b" Go on."], 3))
    engine.step()
    assert ticket.reused_tokens == (len(HEAD) + 59) // 32 * 32


def test_blocks_are_evicted_oldest_first_when_room_is_needed():
    engine = engine_of(cache_tokens=160)
    first, second = [*HEAD[:60]], [BOS, *range(100, 159)]
    run(engine, [greedy(first, 4)])
    run(engine, [greedy(second, 4)])
    run(engine, [greedy([*range(1, 80)], 4)])
    again = engine.submit(greedy(second, 4))
    engine.step()
    assert again.reused_tokens == 59
    engine.cancel(again)
    run(engine, [greedy(first, 4)])
    assert engine.counts.reused == 59


# Settings of their own


@pytest.mark.parametrize("cache_tokens", [2048, 224], ids=["roomy", "tight"])
def test_the_same_seed_gives_the_same_text_whatever_else_is_in_the_batch(cache_tokens):
    alone = run(engine_of(), [seeded(HEAD, 7, top_p=0.9)])[0]
    others = [seeded([BOS, *b"other"], 3), greedy(HEAD), seeded(HEAD, 8, top_k=5), seeded([BOS], 9, 60)]
    for place in (0, 2, 4):
        engine = engine_of(cache_tokens=cache_tokens)
        batch = [*others[:place], seeded(HEAD, 7, top_p=0.9), *others[place:]]
        together = run(engine, batch, apart=2)[place]
        assert [t.id for t in together] == [t.id for t in alone]
        assert "".join(t.text for t in together) == "".join(t.text for t in alone)


def test_stop_strings_end_tokens_and_limits_are_each_request_s_own():
    engine = engine_of()
    (whole,) = ids_of(run(engine, [greedy(HEAD, 30)]))
    text = byte_tokenizer().decode(whole)
    stop = next(c for c in text[5:] if c.isprintable() and c != "\ufffd")
    results = run(
        engine,
        [
            greedy(HEAD, 12),
            Request(HEAD, SamplingConfig(temperature=0, stop=[stop])),
            Request(HEAD, SamplingConfig(temperature=0), end_ids={whole[4]}),
        ],
    )
    assert [tokens[-1].finish_reason for tokens in results] == ["length", "stop", "stop"]
    assert ids_of(results)[0] == whole[:12]
    assert "".join(token.text for token in results[1]) == text[: text.index(stop)]
    assert ids_of(results)[2] == whole[: whole.index(whole[4]) + 1]


def naive_adjusted(model, request: Request) -> list[int]:
    """Greedy tokens with bias and penalties, token by token and in plain numbers."""
    ids, written = list(request.prompt_ids), []
    sampling = request.sampling
    for _ in range(sampling.max_tokens):
        logits = model(torch.tensor([ids]))[0, -1, :259].tolist()
        for token_id, bias in request.logit_bias.items():
            logits[token_id] += bias
        for token_id in set(written):
            times = written.count(token_id)
            logits[token_id] -= sampling.presence_penalty + times * sampling.frequency_penalty
        written.append(max(range(259), key=logits.__getitem__))
        ids.append(written[-1])
    return written


def test_penalties_and_bias_equal_naive_ones_and_leave_other_rows_alone():
    model = tiny_model(max_seq_len=CONTEXT)
    with torch.no_grad():
        model.norm.weight.mul_(0.2)  # logits close enough together for a penalty to matter
    plain = naive(model, greedy(HEAD, 30))
    settings = [
        ({"presence_penalty": 2.0}, {}),
        ({"frequency_penalty": 1.5, "presence_penalty": -0.5}, {}),
        ({}, {plain[0]: -100.0, plain[1]: -3.0, 65: 1.5}),
        ({"frequency_penalty": 2.0}, {70: 2.0}),
    ]
    requests = [
        Request(HEAD, SamplingConfig(temperature=0, max_tokens=30, **sampling), (), logit_bias=bias)
        for sampling, bias in settings
    ]
    with torch.inference_mode():
        expected = [naive_adjusted(model, request) for request in requests]
    results = ids_of(run(engine_of(model), [*requests, greedy(HEAD, 30)]))
    assert results == [*expected, plain]
    assert all(ids != plain for ids in expected)


# Log-probabilities


def soft_model():
    """Logits of ordinary size, so that float32 holds log-probabilities to 1e-5."""
    model = tiny_model(max_seq_len=CONTEXT)
    with torch.no_grad():
        model.norm.weight.mul_(0.1)
    return model


@pytest.mark.usefixtures("_each_decoder")
def test_logprobs_equal_those_of_a_plain_forward_pass():
    model = soft_model()
    requests = [
        Request(prompt, SamplingConfig(temperature=0.7, seed=3, top_k=20, max_tokens=20), (), logprobs=count)
        for prompt, count in [(HEAD, 4), ([BOS, *b"other"], 0), (HEAD[:40], 1)]
    ]
    for request, tokens in zip(requests, run(engine_of(model), requests), strict=True):
        ids = [*request.prompt_ids, *(token.id for token in tokens)]
        with torch.inference_mode():
            logprobs_TV = model(torch.tensor([ids]))[0].double().log_softmax(-1)
        for place, token in enumerate(tokens, len(request.prompt_ids) - 1):
            assert token.logprob == pytest.approx(logprobs_TV[place, token.id].item(), abs=1e-5)
            best = logprobs_TV[place, :259].topk(request.logprobs)
            assert [i for i, _ in token.top_logprobs] == best.indices.tolist()
            assert [p for _, p in token.top_logprobs] == pytest.approx(best.values.tolist(), abs=1e-5)


@pytest.mark.parametrize("prefill_tokens", [256, 32, 9, 1])
@pytest.mark.parametrize("prompt", [HEAD, HEAD[:64], [BOS], [BOS, 260]], ids=len)
def test_prompt_logprobs_equal_those_of_a_plain_forward_pass(prompt, prefill_tokens):
    model = soft_model()
    engine = engine_of(model, prefill_tokens=prefill_tokens)
    run(engine, [greedy(prompt, 2)])  # what is cached must not be missing in the result
    ticket = engine.submit(greedy(prompt, 1, logprobs=2, prompt_logprobs=True))
    first = next(events for _ in range(500) if (events := engine.step()))
    assert first[0][0] is ticket
    scores = ticket.prompt_logprobs
    assert [score.id for score in scores] == prompt
    assert (scores[0].logprob, scores[0].top_logprobs) == (None, ())
    with torch.inference_mode():
        logprobs_TV = model(torch.tensor([prompt]))[0].double().log_softmax(-1)
    for place, score in enumerate(scores[1:]):
        assert score.logprob == pytest.approx(logprobs_TV[place, score.id].item(), abs=1e-5)
        best = logprobs_TV[place, :259].topk(2)
        assert [i for i, _ in score.top_logprobs] == best.indices.tolist()


# Leaving early, and what cannot be


def test_a_cancelled_request_frees_its_blocks_at_once_in_every_phase():
    engine = engine_of(cache_tokens=320, prefill_tokens=8, max_batch=2)
    decoding = engine.submit(greedy([BOS, *b"go"], 90))
    engine.step()
    reading = engine.submit(greedy(HEAD, 30))
    engine.step()
    queued = engine.submit(greedy(HEAD, 30))
    engine.step()
    assert (engine.num_running, engine.num_waiting) == (2, 1)
    for ticket, running, waiting in [(queued, 2, 0), (reading, 1, 0), (decoding, 0, 0)]:
        engine.cancel(ticket)
        assert ticket not in {t for t, _ in engine.step()}
        assert ticket.finish_reason == "cancelled"
        assert (engine.num_running, engine.num_waiting) == (running, waiting)
        engine._cache.check(tables_of(engine))
    assert engine.free_tokens == 320
    assert not engine.has_work


def test_a_request_cancelled_between_two_parts_of_a_prompt_computes_no_more():
    engine = engine_of(prefill_tokens=64)
    tickets = []
    hook = engine.model.embedding.register_forward_hook(lambda *_: engine.cancel(tickets[-1]))
    tickets.append(engine.submit(greedy([BOS, *b"short"], 20)))
    tickets.append(engine.submit(greedy(HEAD, 20)))  # its turn would come in the same step
    engine.step()
    hook.remove()
    assert engine.counts.prefilled == 6
    assert tickets[1].finish_reason == "cancelled"


def test_a_closed_stream_holds_nothing():
    generator = Generator(tiny_model(max_seq_len=CONTEXT), byte_tokenizer())
    stream = generator.stream(HEAD, SamplingConfig(temperature=0, max_tokens=50), end_ids=())
    next(stream)
    stream.close()
    assert not generator._engine.has_work
    assert generator._engine.free_tokens == generator._engine.capacity_tokens


def test_a_long_prompt_does_not_starve_those_who_are_writing():
    engine = engine_of(prefill_tokens=64)
    writer = engine.submit(greedy([BOS, *b"go"], 60))
    engine.step()
    engine.submit(greedy((HEAD * 3)[:200], 4))
    for _ in range(200 // 16):  # a quarter at once while another is written to
        before = engine.counts.prefilled
        assert [ticket for ticket, _ in engine.step()] == [writer]
        assert engine.counts.prefilled - before == 16


def test_a_request_that_could_never_fit_is_refused_naming_both_numbers():
    engine = engine_of(cache_tokens=96)
    with pytest.raises(ResourceError, match=r"need 97 tokens.*holds\s+96") as problem:
        engine.submit(greedy(HEAD[:50], 48))
    assert "hint:" in str(problem.value)
    assert len(run(engine, [greedy(HEAD[:50], 47)])[0]) == 47


def test_a_cache_stays_within_its_bytes():
    engine = engine_of(cache_bytes=100_000)
    assert 90_000 < engine._cache.keys.nbytes + engine._cache.values.nbytes <= 100_000
    with pytest.raises(ResourceError, match="at least 12,288"):
        engine_of(cache_bytes=12_000)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"logit_bias": {300: 1.0}}, "logit_bias has 1.0 for id 300"),
        ({"logit_bias": {5: float("nan")}}, "logit_bias has nan"),
        ({"logit_bias": {5: 1e300}}, "values -100 to 100"),
        ({"logprobs": -1}, "logprobs is -1, 0 to 20"),
        ({"logprobs": 21}, "logprobs is 21, 0 to 20"),
    ],
)
def test_what_no_step_could_do_is_refused_when_it_comes(options, words):
    engine = engine_of()
    with pytest.raises(DataError, match=re.escape(words)):
        engine.submit(greedy([1, 2], **options))
    assert not engine.has_work


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch": 0},
        {"prefill_tokens": 0},
        {"cache_tokens": -5},
        {"cache_tokens": None},
        {"cache_bytes": 10**6, "cache_tokens": 64},
    ],
)
def test_an_engine_that_could_do_nothing_is_refused(options):
    with pytest.raises(UsageError):
        Engine(tiny_model(), byte_tokenizer(), **{"cache_tokens": 64, **options})


def test_a_cache_for_which_there_is_no_memory_is_one_clear_error():
    with pytest.raises(ResourceError, match="no memory for a cache of"):
        engine_of(cache_tokens=10**13)


def test_a_prompt_is_any_sequence_of_ids_and_is_copied():
    ids = [BOS, 5, 6]
    request = greedy(ids)
    ids.append(7)
    assert request.prompt_ids == (BOS, 5, 6) == greedy(torch.tensor([BOS, 5, 6])).prompt_ids


def test_a_sequence_without_numbers_ends_and_the_others_go_on(expected):
    model = tiny_model(max_seq_len=CONTEXT)
    with torch.no_grad():
        model.embedding.weight[200] = float("nan")
    engine = engine_of(model, cache_tokens=256)
    bad = engine.submit(greedy([BOS, 200], 5))
    tokens = {bad: []}
    good = [engine.submit(request) for request in various_requests()[:3]]
    tokens |= {ticket: [] for ticket in good}
    while engine.has_work:
        for ticket, token in engine.step():
            tokens[ticket].append(token)
    assert [token.finish_reason for token in tokens[bad]] == ["error"]
    assert isinstance(bad.error, NumericsError)
    assert [[token.id for token in tokens[ticket]] for ticket in good] == expected[:3]
    assert engine.free_tokens == 256
    assert engine._cache.keys.isfinite().all()


def test_an_engine_that_was_reset_in_the_middle_holds_nothing_and_answers_as_before(expected):
    engine = engine_of(prefill_tokens=16)
    for request in various_requests():
        engine.submit(request)
    for _ in range(9):
        engine.step()
    assert engine.num_running
    assert engine.num_waiting
    engine._cache.values[:] = float("nan")
    engine.reset()
    assert not engine.has_work
    engine._cache.check([])
    assert [[token.id for token in tokens] for tokens in run(engine, various_requests())] == expected
