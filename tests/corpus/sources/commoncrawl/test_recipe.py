"""The whole recipe on a small crawl made of real prose, and on a real archive; models made by `prepare`."""

from __future__ import annotations

import bz2
import json
import lzma
import shutil
from collections import Counter
from html import escape
from pathlib import Path

import pytest

from crawl_archives import gzipped, record
from criadero.config import load, save, validate
from criadero.corpus.document import Document
from criadero.corpus.engine.inline import run_inline
from criadero.corpus.quality import cutoffs
from criadero.corpus.quality.references import ReferenceConfig
from criadero.corpus.sources.commoncrawl.prepare import calibrate, needs, prepare, tables
from criadero.corpus.sources.commoncrawl.recipe import CommonCrawlConfig, stages
from criadero.errors import ConfigError, DataError
from criadero.files import sha256_file
from packaged import packaged_file

SAMPLES = Path(__file__).parents[4] / "samples" / "raw" / "books"
MENU = "Home | About us | Contact | Terms"
FRENCH = "Le comité s'est réuni mardi soir et a décidé de construire le nouveau pont avant l'hiver. " * 6
SPAM = (
    "buy cheap zzxq $$$ click99 qqq www.xyzzy.biz free!!! pills xxk\ncasino jkjk win $$$ 100% zzz now qq " * 6
)


def prose(name: str) -> list[str]:
    with lzma.open(SAMPLES / f"{name}.jsonl.xz", "rt") as stream:
        return [json.loads(line)["text"] for line in stream]


def cut(texts: list[str], characters: int) -> list[str]:
    text = "\n".join(texts)
    return [text[start : start + characters] for start in range(0, len(text) - characters, characters)]


def page(number: int, body: str) -> bytes:
    text = f"Title {number}\n{MENU}\n{body}"
    return record(text.encode(), url=f"https://www.host{number % 50}.org/{number}")


@pytest.fixture(scope="module")
def crawl(tmp_path_factory) -> Path:
    """Two archives: 60 pages of prose, one in French, one of spam, one too short, one copied."""
    folder = tmp_path_factory.mktemp("crawl")
    bodies = [*cut(prose("jane-austen"), 1200)[:60], FRENCH, SPAM, "short", "x\n" * 400]
    records = [page(number, body) for number, body in enumerate(bodies)]
    (folder / "a.warc.wet.gz").write_bytes(gzipped(records[:40]))
    (folder / "b.warc.wet.gz").write_bytes(gzipped(records[40:]) + b"\x1f\x8b\x08\x00")
    return folder


@pytest.fixture(scope="module")
def wikipedia(tmp_path_factory) -> Path:
    """Finished documents to train on: English ones, and one in another language."""
    folder = tmp_path_factory.mktemp("wikipedia")
    documents = [
        {"id": str(n), "text": t, "language": "en"} for n, t in enumerate(prose("sherlock-holmes")[:40])
    ]
    documents.append({"id": "fr", "text": FRENCH * 50, "language": "fr"})
    (folder / "part-00000.jsonl").write_text("\n".join(map(json.dumps, documents)))
    return folder


@pytest.fixture(scope="module")
def prepared(crawl, wikipedia, tmp_path_factory) -> CommonCrawlConfig:
    folder = tmp_path_factory.mktemp("models")
    return prepare(CommonCrawlConfig(), finished={"wikipedia": wikipedia}, folder=folder, inputs=[crawl])


def test_every_step_drops_what_it_is_for(crawl, prepared):
    result = run_inline(stages(prepared, source="commoncrawl", inputs=[crawl]))
    dropped = Counter(row.reason for row in result.ledger if row.outcome in ("dropped", "bad"))
    assert dropped["too_short"] == 1
    assert dropped["language_unwanted"] == 1
    assert dropped["truncated_file"] == 1
    tail = [row.id for row in result.ledger if row.reason == "perplexity_tail"]
    assert len(tail) == pytest.approx(0.4 * 60, abs=3)
    kept = {document.metadata["url"]: document for document in result.documents}
    assert "https://www.host11.org/61" not in kept  # spam
    assert all(MENU not in document.text for document in kept.values())
    assert {document.metadata["bucket"] for document in kept.values()} == {"head", "middle"}
    one = next(iter(kept.values()))
    assert one.metadata["title"].startswith("Title ")
    assert one.metadata["language"] == "en"


def test_prepared_models_are_made_once(crawl, wikipedia, prepared):
    folder = prepared.perplexity_model
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = prepare(
        CommonCrawlConfig(), finished={"wikipedia": wikipedia}, folder=folder.parent, inputs=[crawl]
    )
    assert again == prepared
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert set(before) == {"sentencepiece.model", "ngram.bin", "cutoffs.json", "manifest.json"}


def test_documents_of_a_finished_source_are_not_read_again_to_name_them(
    crawl, wikipedia, prepared, tmp_path, monkeypatch
):
    finished = tmp_path / "finished"
    shutil.copytree(wikipedia, finished)
    parts = [{"name": path.name, "sha256": sha256_file(path)} for path in finished.iterdir()]
    (finished / "manifest.json").write_text(json.dumps({"parts": parts}))
    monkeypatch.setattr("criadero.files.sha256_file", lambda path: pytest.fail(f"{path} was read"))
    found = prepare(
        CommonCrawlConfig(),
        finished={"wikipedia": finished},
        folder=prepared.perplexity_model.parent,
        inputs=[crawl],
    )
    assert found == prepared


def test_a_killed_prepare_leaves_nothing_and_other_text_makes_another_model(
    crawl, wikipedia, prepared, tmp_path, monkeypatch
):
    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("criadero.corpus.sources.commoncrawl.prepare.calibrate", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare(CommonCrawlConfig(), finished={"wikipedia": wikipedia}, folder=tmp_path, inputs=[crawl])
    assert list(tmp_path.iterdir()) == []
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.txt").write_text(prose("sherlock-holmes")[5])
    found = prepare(CommonCrawlConfig(), finished={"wikipedia": other}, folder=tmp_path, inputs=[crawl])
    assert cutoffs.load(found.perplexity_model) != cutoffs.load(prepared.perplexity_model)


def test_calibration_sees_the_pages_the_step_will_see(crawl, prepared):
    found = calibrate(prepared.perplexity_model, CommonCrawlConfig(), inputs=[crawl])
    assert found.documents == 60
    assert found == cutoffs.load(prepared.perplexity_model)
    fewer = calibrate(prepared.perplexity_model, CommonCrawlConfig(calibration_pages=20), inputs=[crawl])
    assert fewer.documents == 20
    calibrate(prepared.perplexity_model, CommonCrawlConfig(), inputs=[crawl])


def test_what_is_needed_follows_from_the_settings(tmp_path):
    assert needs(CommonCrawlConfig()) == ("wikipedia",)
    assert needs(CommonCrawlConfig(perplexity=False)) == ()
    assert needs(CommonCrawlConfig(perplexity_model=tmp_path)) == ()
    both = CommonCrawlConfig(references=ReferenceConfig(pages="c4"))
    assert needs(both) == ("wikipedia", "c4")


def test_a_step_without_a_model_is_an_error(crawl):
    with pytest.raises(DataError, match="`perplexity` has no model"):
        stages(CommonCrawlConfig(), source="crawl", inputs=[crawl])


def test_the_reference_classifier_is_trained_from_a_dump(crawl, tmp_path):
    """Pages that a dump cites in named references and templates are the positives."""
    good, poor = cut(prose("state-of-the-union"), 600), cut(prose("treasury-of-david"), 600)
    pages = tmp_path / "c4"
    pages.mkdir()
    documents, wikitext = [], []
    for number, text in enumerate(x for pair in zip(good[:300], poor[:300], strict=True) for x in pair):
        url = f"http://host{number % 101}.org/{number}"
        documents.append({"id": str(number), "text": text, "url": url})
        if number % 2 == 0:
            wikitext.append(f"<ref name=r{number}>{{{{cite web|url={url}|title=x}}}}</ref>")
    (pages / "part-00000.jsonl").write_text("\n".join(map(json.dumps, documents)))
    dump = tmp_path / "enwiki-pages-articles.xml.bz2"
    dump.write_bytes(bz2.compress(wiki_dump("\n".join(wikitext)).encode()))
    config = CommonCrawlConfig(
        perplexity=False,
        references=ReferenceConfig(min_characters=300, min_positives=100, bits=14),
        wikipedia_dumps=(dump,),
    )
    assert tables(config) == (dump,)
    found = prepare(config, finished={"c4": pages}, folder=tmp_path / "models", inputs=[crawl])
    report = json.loads((found.reference_model / "report.json").read_text())
    assert (report["positives"], report["negatives"], report["reference_urls"]) == (300, 300, 300)
    assert report["auc"] > 0.9
    result = run_inline(stages(found, source="crawl", inputs=[crawl]))
    scores = [row.score for row in result.ledger if row.stage == "reference_classifier"]
    assert len(scores) == 60
    assert all(0 <= score <= 1 for score in scores)


def wiki_dump(wikitext: str) -> str:
    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en">\n'
        "  <siteinfo><dbname>enwiki</dbname><namespaces>"
        '<namespace key="0" case="first-letter" /></namespaces></siteinfo>\n'
        "  <page>\n    <title>A</title>\n    <ns>0</ns>\n    <id>1</id>\n    <revision>\n      <id>2</id>\n"
        f"      <text>{escape(wikitext)}</text>\n    </revision>\n  </page>\n</mediawiki>\n"
    )


def test_a_classifier_without_a_dump_says_what_to_set(crawl, tmp_path):
    config = CommonCrawlConfig(perplexity=False, references=ReferenceConfig())
    with pytest.raises(DataError, match="what Wikipedia cites"):
        prepare(config, finished={"c4": tmp_path}, folder=tmp_path / "models", inputs=[crawl])


def test_a_real_archive_goes_through_ccnet_without_a_wet_redpajama_64(tmp_path):
    config = CommonCrawlConfig(perplexity=False)
    result = run_inline(stages(config, source="crawl", inputs=[packaged_file("iana-warc")]))
    read = [row for row in result.ledger if row.stage == "read"]
    assert len(read) == 16
    assert all(isinstance(document, Document) for document in result.documents)
    urls = [document.metadata["url"] for document in result.documents]
    assert "http://www.iana.org/about" in urls
    about = next(d for d in result.documents if d.metadata["url"] == "http://www.iana.org/about")
    assert about.metadata["title"].startswith("IANA")
    assert about.text.startswith("Introducing IANA\nThe Internet Assigned Numbers Authority (IANA) is a dep")


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="min_chars"):
        validate(CommonCrawlConfig, {"min_chars": 3}, where="test")


def test_settings_are_the_same_after_they_were_saved_and_loaded(tmp_path):
    config = CommonCrawlConfig(perplexity=False, references=ReferenceConfig(threshold=0.25))
    save(config, tmp_path / "config.toml")
    assert load(CommonCrawlConfig, tmp_path / "config.toml") == config
