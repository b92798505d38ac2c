"""Licence headers: what goes, and what the rules of RedPajama and dolma delete by mistake."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from criadero.corpus.sources.github.header import leading_comments, strip_header
from criadero.corpus.sources.github.languages import BY_LANGUAGE, language_of
from linear_time import is_linear

APACHE = """Copyright 2020 The Authors

Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License.
You may obtain a copy of the License at

    http://www.apache.org/licenses/LICENSE-2.0

Unless required by applicable law or agreed to in writing, software
distributed under the License is distributed on an "AS IS" BASIS,
WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
See the License for the specific language governing permissions and
limitations under the License.
"""


def by_line(marker):
    return "".join(f"{marker} {line}".rstrip() + "\n" for line in APACHE.splitlines())


@pytest.mark.parametrize(
    ("language", "header", "code"),
    [
        ("Python", by_line("#"), "import os\n"),
        ("Go", by_line("//") + "\n", "// Package a does b.\npackage a\n"),
        ("Java", "/*\n" + "".join(f" * {line}\n" for line in APACHE.splitlines()) + " */\n", "package a;\n"),
        (
            "JavaScript",
            "/*!\n * express\n * Copyright(c) 2009 A\n * MIT Licensed\n */\n\n",
            "'use strict';\n",
        ),
        ("HTML", f"<!--\n{APACHE}-->\n", "<html></html>\n"),
        ("SQL", by_line("--"), "SELECT 1;\n"),
        ("Haskell", "{-\nCopyright (c) 2020\n-}\n", "module A where\n"),
        ("Lua", "--[[\nCopyright (c) 2020\n]]\n", "local a = 1\n"),
        ("OCaml", "(* Copyright 2020 *)\n", "let a = 1\n"),
        ("TeX", "% Copyright 2020 A\n", "\\documentclass{a}\n"),
        ("Emacs Lisp", ";; Copyright (C) 2020 A\n\n", "(defun a ())\n"),
        ("Rust", "// SPDX-License-Identifier: MIT\n", "fn main() {}\n"),
        ("CSS", "/* (c) 2020 A */\n", "a { b: c }\n"),
        ("Ruby", "=begin\nCopyright 2020\n=end\n", "puts 1\n"),
        ("C", "/* Copyright 1990 A */\r\n\r\n", "int a;\r\n"),
    ],
)
def test_the_header_goes_in_each_syntax_and_the_code_stays(language, header, code):
    assert strip_header(header + code, language) == code


def test_a_shebang_and_an_encoding_line_stay_as_they_do_not_in_redpajama():
    first = "#!/usr/bin/env python\n# -*- coding: utf-8 -*-\n"
    assert strip_header(f"{first}# Copyright 2020 A\nimport os\n", "Python") == f"{first}import os\n"
    assert strip_header(f"{first}import os\n", "Python") == f"{first}import os\n"


def test_includes_and_defines_stay_as_they_do_not_in_redpajama():
    text = "#include <a.h>\n#define B 1\n#pragma once\n// Copyright is below\nint a;\n"
    assert strip_header(text, "C") == text
    assert strip_header("/* Copyright 2020 */\n" + text, "C") == text


def test_titles_of_markdown_stay_as_they_do_not_in_redpajama():
    text = "# Copyright and licence of this project\n\n## More\n\nText.\n"
    assert strip_header(text, "Markdown") == text


def test_leading_comments_without_a_licence_stay_as_they_do_not_in_redpajama():
    text = "# What this script does.\n# And how.\n\nimport os\n"
    assert strip_header(text, "Python") == text
    assert strip_header("// Package a does b.\npackage a\n", "Go") == "// Package a does b.\npackage a\n"


def test_a_block_with_copyright_in_the_middle_stays_as_it_does_not_in_redpajama():
    text = "int a;\n/* Copyright notices are parsed here */\nint b;\n"
    assert strip_header(text, "C") == text


def test_a_first_block_without_copyright_does_not_save_the_header_after_it():
    text = "/* A small program. */\n/* Copyright 2020 A */\nint a;\n"
    assert strip_header(text, "C") == "/* A small program. */\nint a;\n"


def test_of_one_run_of_line_comments_only_the_legal_paragraphs_go():
    text = f"# A tool.\n#\n{by_line('#')}#\n# Usage: a b\n\nimport os\n"
    assert strip_header(text, "Python") == "# A tool.\n# Usage: a b\n\nimport os\n"


def test_declarations_of_xml_and_php_stay():
    xml = '<?xml version="1.0"?>\n'
    assert strip_header(f"{xml}<!-- Copyright 2020 -->\n<a/>\n", "XML") == f"{xml}<a/>\n"
    assert strip_header("<?php\n/* Copyright 2020 */\n\n$a = 1;\n", "PHP") == "<?php\n$a = 1;\n"


@pytest.mark.parametrize(
    "line", ["//go:build linux\n", "// +build linux\n", "# frozen_string_literal: true\n"]
)
def test_what_tools_read_in_comments_stays(line):
    language, marker = ("Go", "//") if line.startswith("//") else ("Ruby", "#")
    assert strip_header(f"{line}{marker} Copyright 2020\n\ncode\n", language) == f"{line}code\n"


def test_a_comment_that_code_follows_on_its_line_stays():
    text = "/* Copyright 2020 */ int a;\n"
    assert strip_header(text, "C") == text


def test_a_file_of_nothing_but_a_header_is_empty_afterwards():
    assert strip_header(by_line("#"), "Python").strip() == ""


def test_a_comment_that_never_ends_stays():
    assert strip_header("/* Copyright 2020\nint a;\n", "C") == "/* Copyright 2020\nint a;\n"


PIECES = [
    "#!",
    "#",
    "//",
    "/*",
    "*/",
    "--",
    "<!--",
    "-->",
    "<?xml a?>",
    "<?php",
    "% ",
    ";",
    "\n",
    "\n",
    "\r\n",
    " ",
]
WORDS = [
    "Copyright 2020",
    "Licensed under",
    "the License",
    "int a;",
    "import b",
    "coding: utf-8",
    "go:build",
    "é",
]
LANGUAGES = st.sampled_from(sorted(BY_LANGUAGE))


@settings(max_examples=500)
@given(st.lists(st.sampled_from(PIECES + WORDS), max_size=40).map("".join) | st.text(), LANGUAGES)
def test_twice_is_once_and_what_is_left_was_there(text, language):
    once = strip_header(text, language)
    assert strip_header(once, language) == once
    lines = iter(text.split("\n"))
    assert all(line in lines for line in once.split("\n") if line)  # in their order
    assert len(leading_comments(text, language)) <= len(text)


def test_twice_the_text_takes_less_than_three_times_as_long():
    header = "/* Copyright 2020 */\n\n# x\n// Copyright\n"
    assert is_linear(lambda text: strip_header(text, "PHP"), lambda count: header * count, 1000)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b.py", "Python"),
        ("Makefile", "Makefile"),
        ("src/Dockerfile", "Dockerfile"),
        ("a.PY", "Python"),
        ("a.h", "C"),
        ("a.crt", None),
        ("LICENSE", None),
        ("py", None),
        (".gitignore", None),
        ("a.tar.gz", None),
    ],
)
def test_languages_are_told_by_name(path, expected):
    language = language_of(path)
    assert (language.name if language else None) == expected
