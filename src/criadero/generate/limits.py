"""What a model can continue at all, said before anything is queued.

Entry points: `check_vocabulary` once, `check_request` for each request; `answer_tokens` and
`cache_tokens_of` say how long an answer may become and what it may need.
"""

from __future__ import annotations

from criadero.errors import DataError, FormatError
from criadero.generate.request import Request
from criadero.model.transformer import Transformer
from criadero.tokenizer.tokenizer import Tokenizer

# The limits of OpenAI's API.
_MOST_LOGPROBS, _MOST_BIAS = 20, 100


def check_vocabulary(model: Transformer, tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer with ids that the model does not know.

    Raises:
        FormatError: naming both numbers.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise FormatError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids, the model {model.config.vocab_size:,}",
            hint="use the tokenizer the model was trained with",
        )


def check_request(request: Request, model: Transformer, tokenizer: Tokenizer) -> None:
    """Refuse what the model cannot continue.

    Raises:
        DataError: the prompt is empty, longer than the context, an id is not known to the model, or
            `logprobs` or a value of `logit_bias` is out of bounds.
    """
    ids, context, known = request.prompt_ids, model.config.max_seq_len, model.config.vocab_size
    if not ids:
        raise DataError("the prompt has no tokens", hint="begin with the tokenizer's begin token")
    if len(ids) >= context:
        raise DataError(
            f"the prompt has {len(ids):,} tokens, the model's context holds {context:,} "
            "with at least one for the answer",
            hint="shorten the prompt; nothing was cut off",
        )
    if not (min(ids) >= 0 and max(ids) < known):
        wrong = next(i for i in ids if not 0 <= i < known)
        raise DataError(
            f"the prompt holds id {wrong}, the model knows 0 to {known - 1:,}",
            hint="encode the prompt with the model's own tokenizer",
        )
    if not 0 <= request.logprobs <= _MOST_LOGPROBS:
        raise DataError(
            f"logprobs is {request.logprobs}, 0 to {_MOST_LOGPROBS} expected", hint="ask for fewer"
        )
    for token_id, bias in request.logit_bias.items():
        if not (0 <= token_id < tokenizer.vocab_size and -_MOST_BIAS <= bias <= _MOST_BIAS):
            raise DataError(
                f"logit_bias has {bias} for id {token_id}; ids are 0 to {tokenizer.vocab_size - 1:,}, "
                f"values -{_MOST_BIAS} to {_MOST_BIAS}",
                hint="take ids from the model's own tokenizer, and -100 to forbid a token",
            )


def answer_tokens(request: Request, model: Transformer) -> int:
    """Return how many tokens the answer may have: what was asked for, at most what the context leaves."""
    return min(request.sampling.max_tokens, model.config.max_seq_len - len(request.prompt_ids))


def cache_tokens_of(request: Request, model: Transformer) -> int:
    """Return how many tokens of cache a request may need; its last token is never looked at."""
    return len(request.prompt_ids) + answer_tokens(request, model) - 1
