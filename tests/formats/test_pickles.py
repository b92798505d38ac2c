"""A pickle given as a model is refused and never run: the file its code would touch does not appear."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from criadero.errors import CriaderoError, FormatError
from criadero.formats.importing import import_model
from criadero.formats.load import load_model, load_tokenizer
from foreign_models import random_llama, write_meta


class Touch:
    """Unpickled, it creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def plain_pickle(path: Path, marker: Path) -> None:
    path.write_bytes(pickle.dumps(Touch(marker)))


def torch_zip(path: Path, marker: Path) -> None:
    torch.save({"weight": torch.zeros(2), "evil": Touch(marker)}, path)


def old_torch_file(path: Path, marker: Path) -> None:
    torch.save(Touch(marker), path, _use_new_zipfile_serialization=False)


WRITERS = [plain_pickle, torch_zip, old_torch_file]
SUFFIXES = [
    ".pt",
    ".pth",
    ".bin",
    ".pkl",
    ".pickle",
    ".ckpt",
    ".joblib",
    ".npy",
    ".npz",
    ".gguf",
    ".safetensors",
]
SUFFIXES += [".dat", ".PT", ".metadata", ".distcp", ""]


@pytest.mark.parametrize("write", WRITERS)
def test_the_attack_works_where_pickles_are_trusted(
    write: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    write(tmp_path / "m.pt", tmp_path / "marker")
    if write is plain_pickle:
        pickle.loads((tmp_path / "m.pt").read_bytes())
    else:
        torch.load(tmp_path / "m.pt", weights_only=False)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("write", WRITERS)
def test_a_pickle_under_any_name_is_refused(
    write: Callable[[Path, Path], None], suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"m{suffix}"
    write(path, tmp_path / "marker")
    for use in (load_model, load_tokenizer, lambda path: import_model(path, tmp_path / "out")):
        with pytest.raises(FormatError, match="is a pickle"):
            use(path)
    assert not (tmp_path / "marker").exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "config.json", "params.json"])
@pytest.mark.parametrize("write", WRITERS)
def test_a_pickle_in_the_place_of_a_tokenizer_or_a_config_is_refused(
    write: Callable[[Path, Path], None], name: str, tmp_path: Path
) -> None:
    write(tmp_path / name, tmp_path / "marker")
    for use in (load_tokenizer, load_model):
        for path in (tmp_path / name, tmp_path):
            with pytest.raises(CriaderoError):
                use(path)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("write", WRITERS)
def test_a_pickle_as_a_part_of_meta_s_weights_is_refused(
    write: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    write_meta(tmp_path / "meta", random_llama(), parts=1)
    write(tmp_path / "meta" / "consolidated.00.pth", tmp_path / "marker")
    with pytest.raises(FormatError, match="tensors only"):
        import_model(tmp_path / "meta", tmp_path / "out")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.safetensors", "tokenizer.model", "tokenizer.json"]
)
@pytest.mark.parametrize("write", WRITERS)
def test_a_pickle_inside_a_hugging_face_folder_is_refused(
    write: Callable[[Path, Path], None], name: str, tmp_path: Path
) -> None:
    random_llama().save_pretrained(tmp_path / "hf")
    if name == "pytorch_model.bin":
        (tmp_path / "hf" / "model.safetensors").unlink()
    write(tmp_path / "hf" / name, tmp_path / "marker")
    with pytest.raises(CriaderoError):
        load_model(tmp_path / "hf")
    assert not (tmp_path / "marker").exists()


def test_the_metadata_of_a_foreign_distributed_checkpoint_is_not_opened(tmp_path: Path) -> None:
    plain_pickle(tmp_path / ".metadata", tmp_path / "marker")
    with pytest.raises(FormatError, match="holds no model"):
        load_model(tmp_path)
    assert not (tmp_path / "marker").exists()


def test_a_zip_that_holds_no_pickle_is_refused_too(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("hello", "world")
    with pytest.raises(FormatError):
        load_model(tmp_path / "m.pt")
