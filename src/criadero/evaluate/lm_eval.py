"""Any task of lm-eval on this project's scorer and engine (the extra `lm-eval`).

Entry point: `CriaderoLM`, a model as lm-eval knows one:

    lm_eval.simple_evaluate(model=CriaderoLM.load(Path("MODEL")), tasks=["lambada_openai"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from criadero.evaluate.encoding import Encoder
from criadero.evaluate.scoring import Score, Scorer, ScoreRequest
from criadero.generate.engine import Engine, Request, Ticket
from criadero.generate.load import load_generator
from criadero.generate.sampling import SamplingConfig
from criadero.model.transformer import Transformer
from criadero.tokenizer.tokenizer import Tokenizer

_MOST_TOGETHER = 16  # answers written side by side; memory for keys and values follows from it
_USUAL_TOKENS = 256  # lm-eval's own default


class CriaderoLM(LM):  # type: ignore[misc]
    """A model for lm-eval.

    Args:
        model: with loaded weights, on its device.
        tokenizer: the model's.
        bos: whether every text opens with the begin token; None for what the model expects.
    """

    def __init__(self, model: Transformer, tokenizer: Tokenizer, *, bos: bool | None = None) -> None:
        super().__init__()
        self._model, self._tokenizer = model, tokenizer
        self._context = model.config.max_seq_len
        self._encoder = Encoder(tokenizer, bos=bos, most_tokens=self._context)
        self._scorer = Scorer(model)

    @classmethod
    def load(cls, path: Path, *, device: str | None = None, dtype: str | None = None) -> CriaderoLM:
        """Load any MODEL; arguments and errors as for `load_generator`."""
        opened = load_generator(path, device=device, dtype=dtype, keep_quantized=False)
        return cls(opened.generator.model, opened.generator.tokenizer)

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        """Return the log-probability of each continuation, and whether greedy decoding writes it."""
        pairs = (self._encoder.pair(*request.args) for request in requests)
        scores = self._scores([self._encoder.fitting(pair) for pair in pairs])
        return [(score.logprob, score.greedy) for score in scores]

    def loglikelihood_rolling(self, requests: Sequence[Instance]) -> list[float]:
        """Return the log-probability of each text, every token scored once."""
        windows, owners = [], []
        for number, request in enumerate(requests):
            ids = self._tokenizer.encode(request.args[0])
            for window in get_rolling_token_windows(ids, self._encoder.first_id, self._context, 1):
                context, continuation = make_disjoint_window(window)
                windows.append(ScoreRequest(tuple(context), tuple(continuation)))
                owners.append(number)
        totals = [0.0] * len(requests)
        for number, score in zip(owners, self._scores(windows), strict=True):
            totals[number] += score.logprob
        return totals

    def generate_until(self, requests: Sequence[Instance]) -> list[str]:
        """Return what the model writes up to each request's stop texts."""
        asked = [self._request(*request.args, seed=number) for number, request in enumerate(requests)]
        longest = max((len(r.prompt_ids) + r.sampling.max_tokens for r in asked), default=1)
        engine = Engine(
            self._model, self._tokenizer, cache_tokens=_MOST_TOGETHER * longest, max_batch=_MOST_TOGETHER
        )
        texts: dict[Ticket, str] = {}
        for request in asked:
            texts[engine.submit(request)] = ""
        while engine.has_work:
            for ticket, token in engine.step():
                if ticket.error is not None:
                    raise ticket.error
                texts[ticket] += token.text
        return list(texts.values())

    def _scores(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        found = dict(self._scorer.score(requests))
        return [found[number] for number in range(len(requests))]

    def _request(self, context: str, options: Mapping[str, Any], *, seed: int) -> Request:
        """Return a request; a context that leaves no room for the answer loses its beginning."""
        tokens = int(options.get("max_gen_toks", _USUAL_TOKENS))
        room = max(1, self._context - tokens)
        ids = self._tokenizer.encode(context, bos=self._encoder.bos)
        samples = bool(options.get("do_sample", options.get("temperature", 0) > 0))
        chosen = {
            "temperature": options.get("temperature", 1.0),
            "top_p": options.get("top_p", 1.0),
            "seed": seed,
        }
        until = options.get("until") or ()
        sampling = SamplingConfig(
            max_tokens=tokens,
            stop=(until,) if isinstance(until, str) else tuple(until),
            **chosen if samples else {"temperature": 0.0},
        )
        return Request(ids[-room:], sampling)
