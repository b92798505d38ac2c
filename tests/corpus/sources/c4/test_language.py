"""Language of a page, held against langdetect itself: the same numbers to the last bit."""

import gzip
import json
from pathlib import Path

import langdetect
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langdetect.detector_factory import PROFILES_DIRECTORY, DetectorFactory

from criadero.corpus.document import Document, Drop
from criadero.corpus.sources.c4.language import make_language, probabilities

SAMPLE = Path(__file__).parents[4] / "samples" / "raw" / "c4" / "c4-demo.json.gz"
SCRIPTS = (
    "the cat OF été ñ здравствуй мир Ἑλλάς 你好世界 こんにちは カタカナ 한국어 سلام "
    "ạ ế o\u0323 a\u0301 ½ İ \u2028\n\t"
)


@pytest.fixture(scope="module")
def original():
    """Return langdetect itself, its languages in order of name as in the module."""
    factory = DetectorFactory()
    factory.seed = 0
    profiles = [file.read_text("utf-8") for file in Path(PROFILES_DIRECTORY).iterdir()]
    factory.load_json_profile(sorted(profiles, key=lambda text: json.loads(text)["name"]))

    def detect(text):
        detector = factory.create()
        detector.append(text)
        try:
            detector.get_probabilities()
        except langdetect.LangDetectException:
            return {}
        return dict(zip(detector.langlist, detector.langprob, strict=True))

    return detect


def real_pages():
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as stream:
        return [json.loads(line)["text"] for line in stream]


def test_probabilities_are_langdetects_to_the_last_bit_on_real_pages(original):
    for text in real_pages():
        assert probabilities(text) == original(text)


@settings(max_examples=80, deadline=None)
@given(
    st.text()
    | st.text(alphabet=SCRIPTS)
    | st.lists(st.sampled_from([*SCRIPTS.split(), "https://a.example/b?c=d", "me@a.example", "  "])).map(
        " ".join
    )
)
def test_probabilities_are_langdetects_on_any_text(original, text):
    assert probabilities(text) == original(text)


def test_a_text_longer_than_langdetect_reads_gives_the_same(original):
    text = "Ceci est un texte en français. http://a.example/ " * 300 + "And this is English. " * 900
    assert probabilities(text) == original(text)


def test_languages_in_the_order_of_a_folder_decide_the_same():
    langdetect.DetectorFactory.seed = 0
    for text in real_pages()[:40]:
        best = langdetect.detect_langs(text)[0]
        assert probabilities(text)[best.lang] == pytest.approx(best.prob, abs=1e-9)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Dies ist ein ganz gewöhnlicher deutscher Satz, der nicht englisch ist.", "other_language"),
        ("12345 67890 !!!", "no_language"),
        ("", "no_language"),
    ],
)
def test_what_is_not_english_is_dropped_with_its_reason(text, reason):
    result = make_language()(Document("p", text, "c4"))
    assert isinstance(result, Drop)
    assert result.reason == reason


def test_an_unsure_page_is_dropped_even_if_english_is_likeliest():
    text = "This is the English house. Ceci est la maison française."
    ranked = sorted(probabilities(text).items(), key=lambda pair: -pair[1])
    assert 0.1 < ranked[0][1] < 0.99
    assert make_language()(Document("p", text, "c4")) == Drop("unsure_language", ranked[0][1], ranked[0][0])


def test_all_300_released_pages_are_english():
    keep = make_language()
    kept = [keep(Document(str(n), text, "c4")) for n, text in enumerate(real_pages())]
    assert all(float(page.metadata["language_probability"]) >= 0.99 for page in kept)
