"""SentencePiece model files as data: checked reading, and building one from a bare vocabulary.

Entry points: `parse_model` (bytes to a checked ModelProto) and `model_proto_from_vocabulary` (what a GGUF
file holds, back to a `tokenizer.model`). Nothing here encodes; sentencepiece_tokenizer.py does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from criadero.errors import TokenizerError
from criadero.tokenizer.tokenizer import MAX_VOCAB_SIZE

# sentencepiece_model.proto, ModelProto.SentencePiece.Type; GGUF's token types have the same numbers.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BPE_MODEL = 2
MAX_PIECE_BYTES = 4096
SPACE = "\u2581"


def parse_model(data: bytes, *, where: str) -> Any:
    """Parse and check a SentencePiece `tokenizer.model`.

    Returns:
        A `sentencepiece_model_pb2.ModelProto`.

    Raises:
        TokenizerError: not such a file, no pieces, too many, an over-long or doubled piece, a piece whose
            type or score cannot be, or an option that this project cannot decode.
    """
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    try:
        proto.ParseFromString(data)
    except (DecodeError, RecursionError, ValueError):
        raise TokenizerError(f"{where} is not a SentencePiece model") from None
    _check(proto, where)
    return proto


def _check(proto: Any, where: str) -> None:
    if not 0 < len(proto.pieces) <= MAX_VOCAB_SIZE:
        raise TokenizerError(f"{where} holds {len(proto.pieces):,} pieces, expected 1 to {MAX_VOCAB_SIZE:,}")
    names = [piece.piece for piece in proto.pieces]
    # protobuf gives bytes for a string whose UTF-8 is broken
    if not all(isinstance(text, str) for text in [*names, proto.trainer_spec.unk_surface]):
        raise TokenizerError(f"{where} holds a piece that is not UTF-8")
    if len(set(names)) != len(names):
        raise TokenizerError(f"{where} holds the same piece twice")
    if not all(names) or max(len(name.encode()) for name in names) > MAX_PIECE_BYTES:
        raise TokenizerError(f"{where} holds an empty piece or one of more than {MAX_PIECE_BYTES} bytes")
    if any(piece.score != piece.score for piece in proto.pieces):
        raise TokenizerError(f"{where} holds a piece whose score is not a number")
    unknown = sum(piece.type == UNKNOWN for piece in proto.pieces)
    if unknown != 1:
        raise TokenizerError(f"{where} holds {unknown} unknown pieces, expected exactly 1")
    for name in (piece.piece for piece in proto.pieces if piece.type == BYTE):
        byte_value(name, where)
    if proto.trainer_spec.treat_whitespace_as_suffix:
        raise TokenizerError(f"{where} writes blanks behind words, which is not supported")


def byte_value(name: str, where: str) -> int:
    """Return the value of a byte piece: 65 for `<0x41>`.

    Raises:
        TokenizerError: the piece is not spelled like that.
    """
    try:
        value = int(name[3:-1], 16)
    except ValueError:
        value = -1
    if name != f"<0x{value:02X}>" or not 0 <= value < 256:
        raise TokenizerError(f"{where} holds a byte piece {name!r}, expected the form `<0x41>`")
    return value


def model_proto_from_vocabulary(
    tokens: Sequence[str],
    scores: Sequence[float],
    *,
    types: Sequence[int],
    unk_id: int = 0,
    bos_id: int = 1,
    eos_id: int = 2,
    add_dummy_prefix: bool = True,
    remove_extra_whitespaces: bool = False,
) -> bytes:
    """Rebuild a LLaMA-style `tokenizer.model` (BPE, byte fallback, identity normaliser) from a vocabulary.

    Args:
        tokens, scores, types: one entry per id; types numbered as SentencePiece and GGUF do.

    Raises:
        TokenizerError: the three differ in length, or the result would not be a valid model.
    """
    from sentencepiece import sentencepiece_model_pb2

    if not len(tokens) == len(scores) == len(types):
        raise TokenizerError(
            f"the vocabulary has {len(tokens)} tokens, {len(scores)} scores and {len(types)} types"
        )
    proto = sentencepiece_model_pb2.ModelProto()
    try:
        for token, score, kind in zip(tokens, scores, types, strict=True):
            proto.pieces.add(piece=token, score=score, type=int(kind))
    except (ValueError, TypeError) as problem:
        raise TokenizerError(f"the vocabulary holds an entry that cannot be: {problem}") from None
    spec = proto.trainer_spec
    spec.model_type = BPE_MODEL
    spec.vocab_size = len(tokens)
    spec.byte_fallback = BYTE in types
    spec.split_digits = True
    spec.allow_whitespace_only_pieces = True
    spec.unk_id, spec.bos_id, spec.eos_id, spec.pad_id = unk_id, bos_id, eos_id, -1
    proto.normalizer_spec.name = "identity"
    proto.normalizer_spec.add_dummy_prefix = add_dummy_prefix
    proto.normalizer_spec.remove_extra_whitespaces = remove_extra_whitespaces
    _check(proto, "the vocabulary")
    return bytes(proto.SerializeToString())
