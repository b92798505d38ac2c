"""SentencePiece tokenizers: encoded by kitoken, which is exact and fast, with SentencePiece as its judge.

Entry points: `SentencePieceTokenizer.from_file` and the class itself on a model's bytes. kitoken is
compared with SentencePiece on a small battery when the tokenizer opens and on one document in 10,000
afterwards; on the first difference, or where it is missing, SentencePiece takes over and that is said once.
Both forms of a `tokenizer.model` are kept: the bytes as found, which `save` writes, and a checked parse.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from criadero import files
from criadero.errors import TokenizerError
from criadero.notices import say_once
from criadero.tokenizer.native import native_faults
from criadero.tokenizer.sentencepiece_model import (
    BYTE,
    CONTROL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    byte_value,
    parse_model,
)
from criadero.tokenizer.special import is_control_name
from criadero.tokenizer.stream import TokenBytes
from criadero.tokenizer.tokenizer import Tokenizer, is_tiktoken, read_bounded

CHECK_EVERY = 10_000
CHECKED_CHARACTERS = 65_536

_FALLBACK = "using SentencePiece, which is exact but slower"

# Each line is one way in which an encoder of its own can differ from SentencePiece.
BATTERY = (
    "",
    " ",
    "   leading, trailing  and   inner blanks   ",
    "Hello world! The year 1984, 3.14159 and 1,000,000.",
    "</s><s><unk><pad> <0x41> <|im_end|>",
    "tabs\tand\nnew lines\r\n\n\n  def f(x):\n        return x**2",
    "\u2581 \u2581\u2581literal \u2581",
    "na\u00efve e\u0301 \u00df \u1e9e \ufb01 \u2460 \u00a0 \u3000 \u200b \ufeff",
    "Привет мир. Ελληνικά. שלום עולם. \u202bمرحبا\u202c",
    "吾輩は猫である。名前はまだ無い。 한국어 ภาษาไทย हिन्दी",
    "\U0001f937\U0001f3fd\u200d\u2642\ufe0f\U0001f1ea\U0001f1f8 \U0001d54f \U0010ffff",
    "\x00\x01\x7f\x80 \ufffd \ufffe",
    "a" * 300 + " " * 70 + "=" * 130 + "ab" * 90,
)


class SentencePieceTokenizer(Tokenizer):
    """A tokenizer defined by a SentencePiece model file.

    Args:
        model: content of a `tokenizer.model`.
        added_tokens: control tokens beyond the model's own pieces, name to id.
        where: what to call the model in errors.
        use_kitoken: False encodes with SentencePiece alone.

    Raises:
        TokenizerError: the model is malformed, or an added token collides with a piece.
    """

    kind = "sentencepiece"

    def __init__(
        self,
        model: bytes,
        *,
        added_tokens: Mapping[str, int] | None = None,
        where: str = "the tokenizer model",
        use_kitoken: bool = True,
    ) -> None:
        self._model = model
        self._added = dict(added_tokens or {})
        self._where = where
        proto = parse_model(model, where=where)
        self._pieces = [piece.piece for piece in proto.pieces] + _added_names(self._added, len(proto.pieces))
        self.vocab_size = len(self._pieces)
        self.sha256 = files.sha256_bytes(model)
        self.special_tokens = _special_tokens(proto) | self._added
        self.bos_id = _control_id(proto, proto.trainer_spec.bos_id, "<s>")
        self.eos_id = _control_id(proto, proto.trainer_spec.eos_id, "</s>")
        self.adds_bos = self.bos_id is not None
        self.token_bytes = _token_bytes(proto, len(self._added))
        encoding_model = _without_control_text(proto, model)
        self._reference = _reference_encoder(encoding_model, where)
        self._fast = _fast_encoder(encoding_model) if use_kitoken else None
        self._documents = 0
        self._check_battery()

    @classmethod
    def from_file(cls, path: Path) -> SentencePieceTokenizer:
        """Read a `tokenizer.model`, with the control tokens added beside it in `added_tokens.json`."""
        data = read_bounded(path)
        if is_tiktoken(path):
            raise TokenizerError(
                f"`{path}` is a tiktoken file, not a SentencePiece model",
                hint="use the `tokenizer.json` of the same model in Hugging Face form",
            )
        return cls(data, added_tokens=_read_added_tokens(path.parent), where=f"`{path}`")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the model's bytes, so that worker processes rebuild their own encoders."""
        return _rebuild, (self._model, self._added, self._where, self._fast is not None)

    @property
    def encoder(self) -> str:
        """Which library encodes now: "kitoken" or "sentencepiece"."""
        return "sentencepiece" if self._fast is None else "kitoken"

    def model_bytes(self) -> bytes:
        """Return the content of the `tokenizer.model`."""
        return self._model

    def piece(self, token_id: int) -> str:
        """Return the piece of an id, blanks spelled U+2581.

        Raises:
            TokenizerError: the id is outside the vocabulary.
        """
        if not 0 <= token_id < self.vocab_size:
            raise TokenizerError(f"token id {token_id} is outside the vocabulary of {self.vocab_size}")
        return str(self._pieces[token_id])

    def save(self, folder: Path) -> None:
        """Write tokenizer.model, tokenizer.json and tokenizer_config.json into `folder`."""
        from criadero.tokenizer.huggingface import save_sentencepiece

        save_sentencepiece(self, folder, parse_model(self._model, where=self._where), added=self._added)

    def _encode_text(self, text: str) -> list[int]:
        if self._fast is None:
            return self._reference(text)
        self._documents += 1
        try:
            with native_faults("kitoken failed"):
                ids = self._fast(text)
                if self._documents % CHECK_EVERY == 1 and not self._agrees(text[:CHECKED_CHARACTERS]):
                    raise TokenizerError("kitoken encodes a document differently from SentencePiece")
        except TokenizerError as problem:
            self._distrust(problem.message)
            return self._reference(text)
        return ids

    def _agrees(self, text: str) -> bool:
        return self._fast is None or self._fast(text) == self._reference(text)

    def _check_battery(self) -> None:
        try:
            with native_faults("kitoken failed"):
                agreed = all(self._agrees(text) for text in BATTERY)
        except TokenizerError:
            agreed = False
        if not agreed:
            self._distrust("kitoken encodes this vocabulary differently from SentencePiece")

    def _distrust(self, reason: str) -> None:
        self._fast = None
        say_once(f"{reason}; {_FALLBACK}")


def _rebuild(model: bytes, added: dict[str, int], where: str, use_kitoken: bool) -> SentencePieceTokenizer:
    return SentencePieceTokenizer(model, added_tokens=added, where=where, use_kitoken=use_kitoken)


def _reference_encoder(model: bytes, where: str) -> Callable[[str], list[int]]:
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except (RuntimeError, ValueError, TypeError, OSError) as problem:
        raise TokenizerError(f"{where} is refused by SentencePiece: {problem}") from None
    return processor.EncodeAsIds


def _fast_encoder(model: bytes) -> Callable[[str], list[int]] | None:
    """Return kitoken's encoder, or None where it is not installed or cannot read this model."""
    try:
        from kitoken import Kitoken

        _quieten_kitoken()
        with native_faults("kitoken cannot read this vocabulary"):
            encode = Kitoken.from_sentencepiece(model).encode
    except (ImportError, TokenizerError) as problem:
        reason = "kitoken is not installed" if isinstance(problem, ImportError) else problem.message
        say_once(f"{reason}; {_FALLBACK}")
        return None

    def fast(text: str) -> list[int]:
        return encode(text, False)

    return fast


def _quieten_kitoken() -> None:
    """Let kitoken speak of errors only, unless somebody chose otherwise: it warns of each unused piece."""
    log = logging.getLogger("kitoken")
    if log.level == logging.NOTSET:
        log.setLevel(logging.ERROR)


def _without_control_text(proto: Any, model: bytes) -> bytes:
    """Return the model with user-defined pieces that name control tokens turned into control pieces.

    SentencePiece finds user-defined pieces in text; some chat models keep `<|im_end|>` among them.
    """
    dangerous = [p for p in proto.pieces if p.type == USER_DEFINED and is_control_name(p.piece)]
    if not dangerous:
        return model
    for piece in dangerous:
        piece.type = CONTROL
    return bytes(proto.SerializeToString())


def _special_tokens(proto: Any) -> dict[str, int]:
    return {
        piece.piece: index
        for index, piece in enumerate(proto.pieces)
        if piece.type in (CONTROL, UNKNOWN) or (piece.type == USER_DEFINED and is_control_name(piece.piece))
    }


def _control_id(proto: Any, index: int, name: str) -> int | None:
    """Return the control id that the model states, if a control piece sits there, else the one of `name`."""
    if 0 <= index < len(proto.pieces) and proto.pieces[index].type == CONTROL:
        return int(index)
    return next((i for i, p in enumerate(proto.pieces) if p.type == CONTROL and p.piece == name), None)


def _token_bytes(proto: Any, num_added: int) -> TokenBytes:
    controls = set(_special_tokens(proto).values())
    anywhere: list[bytes] = []
    at_start: list[bytes] = []
    strips_blank = proto.normalizer_spec.add_dummy_prefix or proto.normalizer_spec.remove_extra_whitespaces
    for index, piece in enumerate(proto.pieces):
        if piece.type == BYTE:
            data = opening = bytes([byte_value(piece.piece, "the model")])
        elif piece.type == UNKNOWN:
            data = opening = proto.trainer_spec.unk_surface.encode()
        elif index in controls:
            data = opening = b""
        else:
            data = piece.piece.replace(SPACE, " ").encode()
            opening = data[1:] if strips_blank and piece.piece.startswith(SPACE) else data
        anywhere.append(data)
        at_start.append(opening)
    return TokenBytes([*anywhere, *[b""] * num_added], [*at_start, *[b""] * num_added])


def _added_names(added: Mapping[str, int], num_pieces: int) -> list[str]:
    """Return the added names in the order of their ids, which must follow the pieces without a hole."""
    names = sorted(added, key=lambda name: added[name])
    if [added[name] for name in names] != list(range(num_pieces, num_pieces + len(names))):
        raise TokenizerError(
            f"added tokens have the ids {sorted(added.values())}, expected {num_pieces} and following"
        )
    return names


def _read_added_tokens(folder: Path) -> dict[str, int]:
    path = folder / "added_tokens.json"
    if not path.is_file():
        return {}
    values = files.read_json(path, max_bytes=1 << 24, error=TokenizerError)
    if not isinstance(values, dict) or not all(type(v) is int for v in values.values()):
        raise TokenizerError(f"`{path}` is not a table of token names and ids")
    return values
