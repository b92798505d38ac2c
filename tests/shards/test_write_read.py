"""Shards give back every document exactly, and refuse to be read once they are damaged."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero import files
from criadero.corpus.document import Document
from criadero.errors import DataError, ResourceError, RunError
from criadero.shards import document_ids, write
from criadero.shards.config import ShardConfig
from criadero.shards.describe import find_document
from criadero.shards.document_ids import is_held_out
from criadero.shards.header import HEADER_BYTES, Header
from criadero.shards.manifest import BuildManifest, split_folders
from criadero.shards.read import ShardSet
from criadero.shards.write import BuildProgress, build, build_from_files
from shards.conftest import BuildShards, make_documents
from shards.fake_tokenizer import ByteTokenizer


def _text(shards: ShardSet, start: int, stop: int) -> str:
    return ByteTokenizer().decode(shards.tokens(start, stop).tolist())


def test_every_document_comes_back_in_order_with_id_and_exact_text(build_shards: BuildShards) -> None:
    documents = make_documents(97)
    shards = ShardSet(build_shards(documents) / "train")
    assert len(shards.manifest.files) > 5
    assert shards.num_documents == 97
    assert shards.num_bytes == sum(document.text_bytes() for document in documents)
    for index, document in enumerate(documents):
        stored = shards.document(index)
        assert (stored.id, stored.num_bytes) == (document.id, len(document.text.encode()))
        assert _text(shards, stored.start, stored.stop) == document.text
        ids = shards.tokens(stored.start, stored.stop)
        assert (ids[0], ids[-1], len(ids)) == (1, 2, stored.num_bytes + 2)
    assert shards.document(96).stop == shards.num_tokens


def test_tokens_are_addressed_across_shards(build_shards: BuildShards) -> None:
    shards = ShardSet(build_shards(make_documents(60)) / "train")
    whole = shards.tokens(0, shards.num_tokens)
    starts = shards.document_starts(0, shards.num_tokens)
    assert whole.dtype == np.uint16
    assert starts.tolist() == np.flatnonzero(whole == 1).tolist()
    for start, stop in [(0, 0), (0, 1), (499, 503), (7, 1_501), (shards.num_tokens - 1, shards.num_tokens)]:
        assert shards.tokens(start, stop).tolist() == whole[start:stop].tolist()
        inside = starts[(starts >= start) & (starts < stop)]
        assert shards.document_starts(start, stop).tolist() == inside.tolist()
    for position in range(0, shards.num_tokens, 13):
        stored = shards.document_at(position)
        assert stored.start <= position < stored.stop
        assert stored.index == np.searchsorted(starts, position, side="right") - 1
    with pytest.raises(IndexError):
        shards.tokens(0, shards.num_tokens + 1)
    with pytest.raises(IndexError):
        shards.document_at(-1)


def test_a_document_is_found_by_its_id(build_shards: BuildShards) -> None:
    folder = build_shards(make_documents(60), heldout_fraction=0.5)
    for document in make_documents(60):
        shards, stored = find_document(split_folders(folder), document.id)
        assert stored.id == document.id
        split = "heldout" if is_held_out(document.id, seed=0, fraction=0.5) else "train"
        assert shards.path == folder / split
    with pytest.raises(DataError, match=r"no document in .* is called 'doc-60'"):
        find_document([folder / "train"], "doc-60")
    with pytest.raises(DataError, match="holds no token shards"):
        split_folders(folder.parent)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=9))
def test_any_text_round_trips(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    out = tmp_path_factory.mktemp("any") / "shards"
    documents = [Document(f"{n}\n{text[:2]}", text, "any") for n, text in enumerate(texts)]
    config = ShardConfig(heldout_fraction=0, shard_tokens=20)
    build(documents, ByteTokenizer(), out, config=config)
    shards = ShardSet(out / "train")
    stored = [shards.document(index) for index in range(shards.num_documents)]
    assert [document.id for document in stored] == [document.id for document in documents]
    assert [_text(shards, document.start, document.stop) for document in stored] == texts


def test_a_large_vocabulary_is_stored_in_four_bytes(build_shards: BuildShards) -> None:
    tokenizer = ByteTokenizer(70_000)
    shards = ShardSet(build_shards(make_documents(20), tokenizer=tokenizer) / "train")
    assert shards.manifest.token_bytes == 4
    assert shards.tokens(0, 9).dtype == np.uint32
    assert shards.tokens(0, 1).tolist() == [1]


def test_without_opening_and_closing_tokens_only_text_is_stored(build_shards: BuildShards, caplog) -> None:
    shards = ShardSet(build_shards(make_documents(9), bos=False, eos=False) / "train")
    assert shards.num_tokens == shards.num_bytes
    assert shards.manifest.tokenizer.bos_id is None
    folder = build_shards(make_documents(9), "no-bos", tokenizer=ByteTokenizer(bos_id=None))
    assert ShardSet(folder / "train").tokens(0, 1).tolist() != [1]
    assert "no bos token" in caplog.text


def test_the_held_out_split_depends_on_seed_and_id_alone(build_shards: BuildShards) -> None:
    documents = make_documents(400)
    first = build_shards(documents, "a", heldout_fraction=0.25, seed=3)
    second = build_shards(documents[::-1], "b", heldout_fraction=0.25, seed=3)

    def held_out(folder: Path) -> set[str]:
        shards = ShardSet(folder / "heldout")
        return {shards.document(index).id for index in range(shards.num_documents)}

    expected = {d.id for d in documents if is_held_out(d.id, seed=3, fraction=0.25)}
    assert held_out(first) == held_out(second) == expected
    assert 60 < len(expected) < 140
    assert expected != {d.id for d in documents if is_held_out(d.id, seed=4, fraction=0.25)}
    train = ShardSet(first / "train")
    assert train.num_documents + len(expected) == 400


def test_the_manifest_says_what_was_built_from_what(tmp_path: Path) -> None:
    inputs = [{"name": "a.txt", "size_bytes": 3, "sha256": "ab" * 32}]
    documents = [*make_documents(50), Document("empty", "", "made-up")]
    seen: list[BuildProgress] = []
    manifest = build(
        documents,
        ByteTokenizer(),
        tmp_path / "out",
        config=ShardConfig(source="mine", heldout_fraction=0.2, shard_tokens=300),
        inputs=inputs,
        skipped={"a.txt": 2},
        progress=seen.append,
    )
    assert BuildManifest.model_validate(files.read_json(tmp_path / "out" / "manifest.json")) == manifest
    assert manifest.empty_documents == 1
    assert manifest.skipped == {"a.txt": 2}
    assert [file.name for file in manifest.inputs] == ["a.txt"]
    assert manifest.splits["train"].tokenizer.sha256 == ByteTokenizer().sha256
    for split in manifest.splits.values():
        assert split == ShardSet(tmp_path / "out" / split.split).manifest
        for file in split.files:
            path = tmp_path / "out" / split.split / file.name
            assert (file.size_bytes, file.sha256) == (path.stat().st_size, files.sha256_file(path))
    totals = [sum(getattr(s, f"num_{x}") for s in manifest.splits.values()) for x in ("documents", "tokens")]
    assert [seen[-1].num_documents, seen[-1].num_tokens] == totals
    assert (tmp_path / "out/tokenizer/tokenizer.json").is_file()


def test_files_are_built_with_their_hashes_and_skips_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.jsonl").write_text('{"id": "x", "text": "second"}\nbroken\n')
    inputs = [tmp_path / "a.txt", tmp_path / "b.jsonl"]
    config = ShardConfig(source="mine", heldout_fraction=0)
    with pytest.raises(DataError, match=r"b\.jsonl:2: not JSON"):
        build_from_files(inputs, ByteTokenizer(), tmp_path / "out", config=config)
    manifest = build_from_files(inputs, ByteTokenizer(), tmp_path / "out", config=config, on_bad="skip")
    assert manifest.skipped == {"b.jsonl": 1}
    assert [(f.name, f.sha256) for f in manifest.inputs] == [(p.name, files.sha256_file(p)) for p in inputs]
    shards = ShardSet(tmp_path / "out/train")
    assert [shards.document(index).id for index in range(2)] == ["a.txt", "x"]


def test_batches_are_bounded_and_change_nothing(build_shards: BuildShards, monkeypatch) -> None:
    documents = make_documents(50)
    whole = ShardSet(build_shards(documents, "whole") / "train")
    monkeypatch.setattr(write, "_BATCH_CHARACTERS", 100)
    assert max(sum(len(d.text) for d in batch) for batch in write._batches(documents)) < 100 + 60
    assert ShardSet(build_shards(documents, "small") / "train").fingerprint == whole.fingerprint


@pytest.mark.parametrize("at_once", [2, 1 << 18])
def test_an_id_that_comes_twice_is_an_error_and_nothing_is_left(tmp_path: Path, monkeypatch, at_once) -> None:
    monkeypatch.setattr(document_ids, "_SEEN_AT_ONCE", at_once)
    documents = [*make_documents(11), Document("doc-4", "again", "made-up")]
    with pytest.raises(DataError, match="two documents have the id 'doc-4'"):
        build(documents, ByteTokenizer(), tmp_path / "out", config=ShardConfig())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("documents", [[], [Document("a", "", "s")]])
def test_no_text_is_an_error(tmp_path: Path, documents: list[Document]) -> None:
    with pytest.raises(DataError, match="no document with text"):
        build(documents, ByteTokenizer(), tmp_path / "out", config=ShardConfig())
    assert list(tmp_path.iterdir()) == []


def test_an_id_outside_the_vocabulary_is_an_error(tmp_path: Path) -> None:
    class Wrong(ByteTokenizer):
        def _encode_text(self, text: str) -> list[int]:
            return [5, 259, 6]

    with pytest.raises(DataError, match=r"'doc-0' was encoded with token id 259, outside .* of 259"):
        build(make_documents(2), Wrong(), tmp_path / "out", config=ShardConfig())


def test_a_lone_surrogate_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'x': character 1 is a lone surrogate"):
        build([Document("x", "a\ud800", "s")], ByteTokenizer(), tmp_path / "out", config=ShardConfig())


def test_disk_space_and_the_output_folder_are_checked_before_the_start(tmp_path: Path) -> None:
    def never():
        raise AssertionError("no document may be read")
        yield

    with pytest.raises(ResourceError, match="building token shards needs"):
        build(never(), ByteTokenizer(), tmp_path / "out", config=ShardConfig(), expected_bytes=1 << 60)
    (tmp_path / "out").mkdir()
    with pytest.raises(RunError, match="exists already"):
        build(never(), ByteTokenizer(), tmp_path / "out", config=ShardConfig())


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path, monkeypatch) -> None:
    def no_space(path: Path) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "sha256_file", no_space)
    with pytest.raises(ResourceError, match="No space left"):
        build(make_documents(3), ByteTokenizer(), tmp_path / "out", config=ShardConfig())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", [HEADER_BYTES + 3, -1, HEADER_BYTES - 1])
def test_one_changed_byte_is_found_and_the_file_named(build_shards: BuildShards, at: int) -> None:
    folder = build_shards(make_documents(40)) / "train"
    path = folder / "shard-00001.bin"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    shards = ShardSet(folder)
    with pytest.raises(DataError, match=r"shard-00001\.bin` has changed"):
        shards.verify()
    shards.verify(0, 2)  # the other rank's share
    with pytest.raises(DataError, match=r"shard-00001\.bin` has changed"):
        shards.verify(1, 2)


def test_intact_shards_verify_on_any_number_of_ranks(build_shards: BuildShards) -> None:
    shards = ShardSet(build_shards(make_documents(40)) / "train")
    for world_size in (1, 2, 3):
        for rank in range(world_size):
            shards.verify(rank, world_size)


@pytest.mark.parametrize("kept", [0, 7, 8, HEADER_BYTES, 0.5, -1])
def test_a_cut_shard_is_refused_when_opened(build_shards: BuildShards, kept: float) -> None:
    folder = build_shards(make_documents(40)) / "train"
    path = folder / "shard-00002.bin"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(DataError, match=r"shard-00002\.bin"):
        ShardSet(folder)


def test_a_deleted_shard_is_named(build_shards: BuildShards) -> None:
    folder = build_shards(make_documents(40)) / "train"
    (folder / "shard-00002.bin").unlink()
    with pytest.raises(DataError, match=r"shard-00002\.bin` cannot be read: No such file"):
        ShardSet(folder)


@pytest.mark.parametrize("position", range(8, HEADER_BYTES - 24, 4))
def test_every_field_of_the_header_is_checked(build_shards: BuildShards, position: int) -> None:
    folder = build_shards(make_documents(40)) / "train"
    path = folder / "shard-00000.bin"
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, position, struct.unpack_from("<I", data, position)[0] ^ 0x7FFFFFFF)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"shard-00000\.bin"):
        ShardSet(folder)


def test_a_header_that_lies_about_its_document_table_is_refused(build_shards: BuildShards) -> None:
    folder = build_shards(make_documents(5)) / "train"
    path = folder / "shard-00000.bin"
    data = bytearray(path.read_bytes())
    shards = ShardSet(folder)
    header = Header(
        2, ByteTokenizer().sha256, 259, shards.num_tokens, 5, shards.num_bytes, 5 * len("doc-0"), 1, 2
    )
    assert bytes(data[:HEADER_BYTES]) == header.pack()
    struct.pack_into("<q", data, header.lengths_at - 8, 1 << 40)
    path.write_bytes(data)
    with pytest.raises(DataError, match="document table"):
        ShardSet(folder)


def test_an_unknown_version_is_refused_naming_both(build_shards: BuildShards) -> None:
    folder = build_shards(make_documents(5)) / "train"
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format_version": 7}))
    with pytest.raises(
        DataError, match=r"manifest\.json` has format version 7, this program reads version 1"
    ):
        ShardSet(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    data = bytearray((folder / "shard-00000.bin").read_bytes())
    struct.pack_into("<I", data, 8, 9)
    (folder / "shard-00000.bin").write_bytes(data)
    with pytest.raises(DataError, match=r"has format version 9, this program reads version 1"):
        ShardSet(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_tokens": 1}, "num_tokens"),
        ({"surprise": 1}, "surprise"),
        ({"files": []}, "files"),
        ({"format_version": None}, "no `format_version`"),
    ],
)
def test_an_edited_manifest_is_refused(build_shards: BuildShards, change: dict, words: str) -> None:
    path = build_shards(make_documents(5)) / "train/manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=words):
        ShardSet(path.parent)


def test_a_manifest_cannot_name_files_outside_its_folder(build_shards: BuildShards) -> None:
    path = build_shards(make_documents(5)) / "train/manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][0]["name"] = "../../shard-00000.bin"
    path.write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="leads out of"):
        ShardSet(path.parent)


def test_the_folder_of_all_splits_is_no_shard_set(build_shards: BuildShards) -> None:
    with pytest.raises(DataError, match="holds several splits"):
        ShardSet(build_shards(make_documents(5)))
