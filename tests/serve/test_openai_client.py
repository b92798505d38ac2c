"""OpenAI's own Python client against the server; what it cannot read is wrong."""

from __future__ import annotations

import openai
import pytest
import torch

from criadero.generate.engine import Engine
from criadero.generate.request import Request
from criadero.generate.sampling import SamplingConfig
from generate.tiny_model import byte_tokenizer, tiny_model
from serve.running import running

PROMPT = "Once there was a farm"


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def greedy(ids, *, max_tokens):
    """Return text and prompt scores of the engine itself, without a server."""
    engine = Engine(tiny_model(max_seq_len=512), byte_tokenizer(), cache_tokens=1024)
    sampling = SamplingConfig(temperature=0.0, max_tokens=max_tokens)
    ticket = engine.submit(Request(ids, sampling, prompt_logprobs=True, logprobs=1))
    tokens = []
    while ticket.finish_reason is None:
        tokens += [token for _, token in engine.step()]
    return tokens, ticket


def test_a_completion_is_what_the_engine_writes(client):
    ids = byte_tokenizer().encode(PROMPT, bos=True)
    tokens, _ = greedy(ids, max_tokens=20)
    answered = client.completions.create(model="any", prompt=PROMPT, temperature=0, max_tokens=20)
    assert answered.choices[0].text == "".join(token.text for token in tokens)
    assert answered.model == "tiny"
    assert answered.usage.prompt_tokens == len(ids)
    assert answered.usage.completion_tokens == len(tokens)


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_a_stream_says_the_same_as_a_whole_answer_and_counts_alike(client, kind):
    settings = {"model": "tiny", "temperature": 0, "max_tokens": 24}
    if kind == "chat":
        create = client.chat.completions.create
        settings["messages"] = [{"role": "user", "content": PROMPT}]
    else:
        create = client.completions.create
        settings["prompt"] = PROMPT
    whole = create(**settings)
    chunks = list(create(**settings, stream=True, stream_options={"include_usage": True}))
    choices = [chunk.choices[0] for chunk in chunks[:-1]]
    said = [(c.delta.content or "") if kind == "chat" else c.text for c in choices]
    first = whole.choices[0]
    assert "".join(said) == (first.message.content if kind == "chat" else first.text)
    assert choices[-1].finish_reason == first.finish_reason == "length"
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 24
    if kind == "chat":
        assert choices[0].delta.role == "assistant"


def test_choices_differ_and_a_seed_repeats_them(client):
    def texts():
        made = client.completions.create(model="tiny", prompt=PROMPT, n=3, seed=7, max_tokens=24)
        return [choice.text for choice in made.choices]

    first = texts()
    assert texts() == first
    assert len(set(first)) == 3


def test_an_echo_of_ids_gives_each_token_its_log_probability(client):
    ids = byte_tokenizer().encode(PROMPT, bos=True)
    tokens, ticket = greedy(ids, max_tokens=1)
    answered = client.completions.create(
        model="tiny", prompt=ids, temperature=0, max_tokens=1, logprobs=1, echo=True
    )
    scores = answered.choices[0].logprobs
    expected = [*(score.logprob for score in ticket.prompt_logprobs), tokens[0].logprob]
    assert scores.token_logprobs[0] is None
    torch.testing.assert_close(
        torch.tensor(scores.token_logprobs[1:]), torch.tensor(expected[1:]), rtol=0, atol=1e-5
    )
    assert len(scores.tokens) == len(scores.text_offset) == len(ids) + 1
    # An evaluator calls a token greedy where the two are equal, to the bit.
    assert scores.token_logprobs[-1] == max(scores.top_logprobs[-1].values())


def test_log_probabilities_of_a_chat_belong_to_its_tokens(client):
    answered = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": [{"type": "text", "text": PROMPT}]}],
        temperature=0,
        max_tokens=8,
        logprobs=True,
        top_logprobs=3,
    )
    entries = answered.choices[0].logprobs.content
    assert len(entries) == 8
    for entry in entries:
        assert len(entry.top_logprobs) == 3
        assert entry.logprob == entry.top_logprobs[0].logprob


def test_a_stop_text_ends_the_answer_and_a_bias_forbids_a_token(client):
    settings = {"model": "tiny", "prompt": PROMPT, "temperature": 0, "max_tokens": 24}
    whole = client.completions.create(**settings).choices[0].text
    stopped = client.completions.create(**settings, stop=whole[5:7]).choices[0]
    assert stopped.text == whole[: whole.index(whole[5:7])]
    assert stopped.finish_reason == "stop"
    first = byte_tokenizer().encode(whole[0])[0]
    other = client.completions.create(**settings, logit_bias={str(first): -100}).choices[0].text
    assert other[:1] != whole[0]


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "criadero"


WRONG = {
    "max_tokens": [0, -1, 1.5, "8", True],
    "n": [0, 10**9, "2"],
    "stop": [["x"] * 100_000, [""], ["x" * 65], 3],
    "temperature": [-1, "hot", 1e9],
    "top_p": [0, 2],
    "seed": [-1, 1.5],
    "logit_bias": [{"x": 1}, {"99999": 1}, {"1": 101}, {"1": "a"}],
    "prompt": [[], "", 7, [[]], [1.5], [99999], ["a", 1], "x" * 600, "\ud800"],
    "logprobs": [-1, 21, True],
    "tools": [[{"type": "function"}]],
    "response_format": [{"type": "json_schema"}],
    "suffix": ["end"],
}


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, values in WRONG.items() for v in values])
def test_a_wrong_field_is_refused_by_name_and_the_next_request_is_answered(server, field, value):
    if field == "prompt" and value == "":
        value = [""] * 65
    refused = server.ask("/v1/completions", {"prompt": "a", field: value})
    assert refused.status == 400
    assert refused.json["error"]["type"] == "invalid_request_error"
    assert refused.json["error"]["param"] == field
    assert server.ask("/v1/completions", {"prompt": "a", "max_tokens": 1}).status == 200


def test_more_tokens_than_the_context_holds_are_clipped(server):
    answered = server.ask("/v1/completions", {"prompt": "a", "max_tokens": 10**9, "temperature": 0})
    assert answered.json["choices"][0]["finish_reason"] in ("length", "stop")
    assert answered.json["usage"]["total_tokens"] <= 512


def test_the_client_reads_a_refusal_as_a_bad_request(client):
    with pytest.raises(openai.BadRequestError, match="context holds 512"):
        client.completions.create(model="tiny", prompt="x" * 600)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", messages=[{"role": "tool", "content": "x"}])
    assert caught.value.param == "messages"
