"""Licences: texts as packages carry them, SPDX expressions, headers of files."""

import importlib.metadata
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from criadero.corpus.document import Document, Drop
from criadero.corpus.sources.github import licence
from criadero.corpus.sources.github.filters import is_licence_file
from criadero.corpus.sources.github.permission import make_permission

ALLOWED = licence.PERMISSIVE


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("mit", True),
        ("MIT OR )", False),
        ("MIT OR OR", False),
        ("MIT OR AND", False),
        ("(MIT OR WITH)", False),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-2.0-only", True),
        ("MIT AND GPL-2.0-only", False),
        ("GPL-2.0-only AND MIT OR Apache-2.0", True),
        ("GPL-2.0-only AND (MIT OR Apache-2.0)", False),
        ("(MIT OR GPL-2.0-only) AND BSD-3-Clause", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("", False),
        ("MIT MIT", False),
        ("(MIT", False),
        ("SEE LICENSE IN LICENSE.md", False),
        ("MIT OR", False),
    ],
)
def test_an_expression_is_allowed_if_permissive_licences_can_meet_it(expression, expected):
    assert licence.allows(expression, ALLOWED) == expected


@given(st.lists(st.sampled_from(["MIT", "GPL", "AND", "OR", "WITH", "(", ")"])).map(" ".join) | st.text())
def test_no_expression_breaks_the_rule_or_is_allowed_without_naming_a_permissive_licence(expression):
    named = any(name.lower() in expression.lower() for name in ALLOWED)
    assert named or not licence.allows(expression, ALLOWED)
    assert not licence.allows("(" * 5000 + expression, ALLOWED)


def installed(name):
    """Return text and SPDX identifier of the licence of an installed package."""
    distribution = importlib.metadata.distribution(name)
    file = next(f for f in distribution.files or () if is_licence_file(f.name) and "licenses" in str(f))
    return distribution.locate_file(file).read_text("utf-8")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("click", "BSD-3-Clause"),
        ("attrs", "MIT"),
        ("anyio", "MIT"),
        ("idna", "BSD-3-Clause"),
        ("huggingface_hub", "Apache-2.0"),
    ],
)
def test_licence_texts_of_real_packages_are_known(name, expected):
    assert licence.of_text(installed(name)) == expected


def test_near_relatives_are_not_taken_for_each_other():
    from criadero.corpus.sources.github.licence_texts import TEXTS

    for name, text in TEXTS.items():
        assert licence.of_text(f"The Licence\n\nCopyright (c) 2020 A\nAll rights reserved.\n{text}") == name
    advertising = "All advertising materials mentioning features or use of this software must display this: "
    four = TEXTS["BSD-3-Clause"].replace("3. Neither", f"3. {advertising * 2}\n4. Neither")
    assert licence.of_text(four) is None
    assert licence.of_text(TEXTS["MIT"] + TEXTS["BSD-2-Clause"]) is None
    assert licence.of_text("") is None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("License-Expression: MIT OR Apache-2.0\n", "MIT OR Apache-2.0"),
        ("License: MIT\n", "MIT"),
        ("License: BSD\nClassifier: License :: OSI Approved :: BSD License\n", None),
        ("Classifier: License :: OSI Approved :: MIT License\n", "MIT"),
        ("Classifier: License :: OSI Approved :: Apache Software License\n", "Apache-2.0"),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)\n", None),
        (
            "Classifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)\n",
            None,
        ),
        ("License: A long text\n  of a licence that is MIT\n", None),
    ],
)
def test_core_metadata_declares_a_licence(fields, expected):
    data = f"Metadata-Version: 2.1\nName: a\n{fields}\nLicense: GPL in the description\n".encode()
    assert licence.of_metadata("a.dist-info/METADATA", data) == expected


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        ({"license": "MIT"}, "MIT"),
        ({"license": {"type": "BSD-3-Clause", "url": ""}}, "BSD-3-Clause"),
        ({"license": ["MIT"]}, None),
        ({}, None),
        ([], None),
    ],
)
def test_package_json_declares_a_licence(package, expected):
    assert licence.of_metadata("package.json", json.dumps(package).encode()) == expected


@given(st.binary(), st.sampled_from(["METADATA", "package.json"]))
def test_bytes_that_are_no_metadata_name_no_licence(data, name):
    assert licence.of_metadata(name, data) is None
    assert licence.of_text(data.decode("latin-1")) is None


def test_licence_files_are_found_by_name_in_any_folder_as_they_are_not_in_redpajama():
    names = [
        "LICENSE",
        "a/LICENSE",
        "LICENSE.txt",
        "LICENSE-MIT",
        "licence.md",
        "COPYING",
        "COPYING.LESSER",
        "UNLICENSE",
    ]
    assert all(is_licence_file(name) for name in names)
    assert not any(
        is_licence_file(name) for name in ["license.py", "src/licenses.go", "copying.c", "licensed.md"]
    )


def decided(text, *, declared="MIT", path="a.c", language="C"):
    metadata = {
        "repo": "r",
        "path": path,
        "language": language,
        "licence": declared,
        "licence_from": "metadata",
    }
    return make_permission(allowed=ALLOWED)(Document("r:a", text, "github", metadata))


def test_a_gpl_file_in_an_mit_repository_goes_as_it_does_not_in_redpajama():
    gpl = "/* This is free software under the terms of the GNU General Public License. */\nint a;\n"
    assert decided(gpl) == Drop("file_license", detail="GNU General Public")
    assert decided("// SPDX-License-Identifier: GPL-2.0-only\nint a;\n") == Drop(
        "file_license", detail="GPL-2.0-only"
    )


def test_an_spdx_line_speaks_for_a_file_whose_repository_says_nothing():
    kept = decided("/* SPDX-License-Identifier: MIT OR GPL-2.0-only */\nint a;\n", declared="")
    assert (kept.metadata["licence"], kept.metadata["licence_from"]) == ("MIT OR GPL-2.0-only", "spdx_line")
    assert decided("int a;\n", declared="") == Drop("unknown_licence")


def test_a_licence_named_in_the_code_says_nothing_about_the_file():
    text = 'int a;\n/* GPL */\nchar *b = "SPDX-License-Identifier: GPL-2.0-only";\n'
    assert not isinstance(decided(text), Drop)


def test_a_choice_between_licences_is_taken():
    text = "/* Dual licensed under the MIT or GPL Version 2 licenses. */\nint a;\n"
    assert not isinstance(decided(text), Drop)


def test_a_repository_under_another_licence_goes():
    assert decided("int a;\n", declared="GPL-3.0-only") == Drop("licence", detail="GPL-3.0-only")
