"""The recipe for CommonCrawl: `kind = "commoncrawl"`, WET or WARC archives through CCNet's steps.

Entry points: `CommonCrawlConfig` and `stages`. In CCNet's order (Wenzek et al. 2020; LLaMA 2.1): pages, lines
shared by documents, language, perplexity, then the classifier of references. The models that the last two
need are given by path, or made by `prepare` from sources that are finished.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from criadero.config import Config
from criadero.corpus import language
from criadero.corpus.dedup import lines
from criadero.corpus.dedup.lines import LineDedupConfig
from criadero.corpus.engine.stage import Each, Read, Recipe
from criadero.corpus.language import LanguageConfig
from criadero.corpus.quality import perplexity, references
from criadero.corpus.quality.perplexity import PerplexityConfig
from criadero.corpus.quality.references import ReferenceConfig
from criadero.corpus.sources.commoncrawl import inputs as inputs_module
from criadero.corpus.sources.commoncrawl.frames import MAX_RECORD_BYTES
from criadero.corpus.sources.commoncrawl.pages import make_parse, make_reader
from criadero.errors import DataError


class CommonCrawlConfig(Config):
    """A source of kind `commoncrawl`. Its defaults are CCNet's, kept buckets those of CC-100 and RedPajama.

    Attributes:
        kind: names this kind of source.
        base: what the paths of a crawl's list (`wet.paths.gz`) are relative to, `https://` or `s3://`.
        downloads: folder for archives that are URLs.
        keep_downloads: leave them there after they are read.
        s3_endpoint: of an S3 service other than Amazon's.
        main_content: of HTML, the main content without menus and footers; all visible text otherwise. WET
            archives hold all visible text.
        max_record_bytes: larger records are bad records.
        min_characters: of a page without its title, before anything is removed from it.
        lines: which repeated lines go.
        languages: the pages that stay.
        language_threshold: least score of a page's language.
        language_model: a fastText model; default lid.176.ftz.
        perplexity: which buckets stay; false leaves the step out.
        perplexity_model: folder of a model with its cutoffs; by default one is trained.
        train_on: the finished source that the perplexity model is trained on.
        calibration_pages: pages of this source that its cutoffs are computed on, at most.
        references: the classifier of pages like Wikipedia's references; none leaves the step out.
        reference_model: folder of a classifier; by default one is trained.
        wikipedia_dumps: where the classifier finds the addresses that Wikipedia cites.
    """

    kind: Literal["commoncrawl"] = "commoncrawl"
    base: str = "https://data.commoncrawl.org/"
    downloads: Path | None = None
    keep_downloads: bool = True
    s3_endpoint: str | None = None
    main_content: bool = True
    max_record_bytes: int = Field(default=MAX_RECORD_BYTES, ge=1 << 10, le=1 << 30)
    min_characters: int = Field(default=300, ge=0)
    lines: LineDedupConfig = LineDedupConfig()
    languages: tuple[str, ...] = Field(default=("en",), min_length=1)
    language_threshold: float = Field(default=0.5, ge=0, le=1)
    language_model: Path | None = None
    perplexity: PerplexityConfig | Literal[False] = PerplexityConfig()
    perplexity_model: Path | None = None
    train_on: str = "wikipedia"
    calibration_pages: int = Field(default=20_000, ge=1)
    # differs from paper: off unless asked for, because it needs a dump that cites enough of the pages held.
    references: ReferenceConfig | None = None
    reference_model: Path | None = None
    wikipedia_dumps: tuple[Path, ...] = ()


def stages(config: CommonCrawlConfig, *, source: str, inputs: Sequence[Path | str]) -> Recipe:
    """Return the recipe for archives, folders of them, URLs and lists of paths.

    Raises:
        DataError: an input is missing or no archive, or a model is neither given nor prepared.
    """
    recipe = scored_stages(config, source=source, inputs=inputs)
    if config.perplexity is not False:
        folder = _required(config.perplexity_model, "perplexity")
        recipe += (perplexity.stage(config.perplexity, folder, language=config.languages[0]),)
    if config.references is not None:
        recipe += (references.stage(config.references, _required(config.reference_model, "reference")),)
    return recipe


def scored_stages(config: CommonCrawlConfig, *, source: str, inputs: Sequence[Path | str]) -> Recipe:
    """Return the recipe up to the pages that models are asked about, and cutoffs computed on."""
    splits = inputs_module.splits(
        inputs, base=config.base, downloads=config.downloads, s3_endpoint=config.s3_endpoint
    )
    reading = {
        "source": source,
        "max_record_bytes": config.max_record_bytes,
        "main_content": config.main_content,
        "downloads": str(config.downloads) if config.downloads else None,
        "keep_downloads": config.keep_downloads,
        "s3_endpoint": config.s3_endpoint,
    }
    wanted = LanguageConfig(
        wanted=config.languages, threshold=config.language_threshold, model=config.language_model
    )
    return (
        Read(splits, make_reader, reading),
        Each("parse", make_parse, {"min_characters": config.min_characters}),
        lines.stage(config.lines),
        language.stage(wanted),
    )


def _required(folder: Path | None, name: str) -> Path:
    if folder is None:
        raise DataError(
            f"the step `{name}` has no model",
            hint=f"set `{name}_model` to its folder, or let `prepare` train one from a finished source",
        )
    return folder
