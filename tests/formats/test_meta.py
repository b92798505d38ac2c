"""Meta's folders, in one and two model-parallel parts, and the paper's formulas through them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from criadero.errors import FormatError
from criadero.formats.load import load_model
from criadero.formats.meta import open_folder
from foreign_models import TOKENS_BT, logits, meta_weights, random_llama, write_meta
from naive_llama import naive_logits

FOUR_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 272}


def paper_logits(model: LlamaForCausalLM) -> torch.Tensor:
    """The paper's formulas, complex numbers and all, on the weights in Meta's layout."""
    config = model.config
    rows = [
        naive_logits(
            meta_weights(model),
            tokens_T,
            num_heads=config.num_attention_heads,
            num_kv_heads=config.num_key_value_heads,
            eps=config.rms_norm_eps,
            theta=10000.0,
        )
        for tokens_T in TOKENS_BT
    ]
    return torch.stack(rows).float()


@pytest.mark.parametrize(("parts", "embedding_axis"), [(1, 1), (2, 1), (2, 0)])
def test_logits_equal_the_paper_s_formulas_with_complex_rope(
    parts: int, embedding_axis: int, tmp_path: Path
) -> None:
    model = random_llama(**FOUR_HEADS)
    write_meta(tmp_path / "meta", model, parts=parts, embedding_axis=embedding_axis)
    ours = load_model(tmp_path / "meta")
    torch.testing.assert_close(logits(ours.model), paper_logits(model), atol=1e-4, rtol=1e-4)
    assert ours.config.vocab_size == 272
    assert ours.config.norm_eps == 1e-5
    assert ours.config.hidden_dim == 64


def test_the_paper_s_own_multi_head_form_agrees(tmp_path: Path) -> None:
    model = random_llama(num_key_value_heads=3)
    write_meta(tmp_path / "meta", model, parts=1)
    ours = load_model(tmp_path / "meta")
    torch.testing.assert_close(logits(ours.model), paper_logits(model), atol=1e-4, rtol=1e-4)


def test_the_halves_of_transformers_agree_with_the_pairs_of_meta(tmp_path: Path) -> None:
    model = random_llama(**FOUR_HEADS)
    write_meta(tmp_path / "meta", model, parts=2)
    torch.testing.assert_close(
        logits(load_model(tmp_path / "meta").model), logits(model), atol=1e-4, rtol=1e-4
    )


def test_the_stored_precision_is_kept(tmp_path: Path) -> None:
    write_meta(tmp_path / "meta", random_llama(**FOUR_HEADS).to(torch.bfloat16), parts=2)
    assert open_folder(tmp_path / "meta").dtype == torch.bfloat16


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    write_meta(tmp_path / "meta", random_llama(**FOUR_HEADS), parts=2)
    (tmp_path / "meta" / "consolidated.00.pth").unlink()
    with pytest.raises(FormatError, match=r"consolidated\.01\.pth"):
        open_folder(tmp_path / "meta")


def test_one_part_of_two_does_not_pass_for_the_model(tmp_path: Path) -> None:
    write_meta(tmp_path / "meta", random_llama(**FOUR_HEADS), parts=2)
    (tmp_path / "meta" / "consolidated.01.pth").unlink()
    with pytest.raises(FormatError, match="do not fit"):
        open_folder(tmp_path / "meta")


def test_an_unknown_parameter_is_refused(tmp_path: Path) -> None:
    write_meta(tmp_path / "meta", random_llama(**FOUR_HEADS), parts=1, moe_experts=8)
    with pytest.raises(FormatError, match="moe_experts"):
        open_folder(tmp_path / "meta")


def test_rope_settings_of_later_models_are_read(tmp_path: Path) -> None:
    write_meta(tmp_path / "meta", random_llama(**FOUR_HEADS), parts=1, rope_theta=5e5, use_scaled_rope=True)
    config = open_folder(tmp_path / "meta").config
    assert config.rope_theta == 5e5
    assert config.rope_scaling is not None
    assert config.rope_scaling.factor == 8.0


def test_a_rope_factor_that_is_not_stated_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_llama(**FOUR_HEADS)
    monkeypatch.setattr("criadero.formats.meta._LLAMA_3_2_DIMS", (model.config.hidden_size,))
    write_meta(tmp_path / "meta", model, parts=1, use_scaled_rope=True)
    with pytest.raises(FormatError, match="does not state"):
        open_folder(tmp_path / "meta")


@pytest.mark.parametrize("length", [0, 10, 1000, -1])
def test_a_truncated_part_is_refused(length: int, tmp_path: Path) -> None:
    write_meta(tmp_path / "meta", random_llama(**FOUR_HEADS), parts=1)
    path = tmp_path / "meta" / "consolidated.00.pth"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(FormatError):
        open_folder(tmp_path / "meta")
