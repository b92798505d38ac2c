"""Which files are source code, by suffix or name, and how their language writes comments.

Entry point: `language_of(path)`. The table is this project's own: what programmers write by hand and an
English-speaking reader learns from, with the documentation and build files around it. Data, lock files and
images are in no language.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath


@dataclass(frozen=True, slots=True)
class Comments:
    """The comment syntax of a language.

    Attributes:
        line: what starts a comment that ends with the line.
        blocks: what starts and what ends a longer one.
    """

    line: tuple[str, ...] = ()
    blocks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Language:
    """A language of the table."""

    name: str
    comments: Comments


_SLASH = Comments(("//",), (("/*", "*/"),))
_STAR = Comments((), (("/*", "*/"),))
_HASH = Comments(("#",))
_PHP = Comments(("//", "#"), (("/*", "*/"),))
_DASH = Comments(("--",))
_SQL = Comments(("--",), (("/*", "*/"),))
_LUA = Comments(("--",), (("--[[", "]]"),))
_HASKELL = Comments(("--",), (("{-", "-}"),))
_ML = Comments((), (("(*", "*)"),))
_FSHARP = Comments(("//",), (("(*", "*)"),))
_PASCAL = Comments(("//",), (("(*", "*)"), ("{", "}")))
_LISP = Comments((";",), (("#|", "|#"),))
_SEMICOLON = Comments((";",))
_PERCENT = Comments(("%",))
_MATLAB = Comments(("%",), (("%{", "%}"),))
_BANG = Comments(("!",))
_QUOTE = Comments(("'",))
_MARKUP = Comments((), (("<!--", "-->"),))
_JULIA = Comments(("#",), (("#=", "=#"),))
_POWERSHELL = Comments(("#",), (("<#", "#>"),))
_CMAKE = Comments(("#",), (("#[[", "]]"),))
_BATCH = Comments(("::", "REM ", "rem ", "@REM ", "@rem "))
_NONE = Comments()

# Name, syntax, suffixes, whole names.
_TABLE: tuple[tuple[str, Comments, str, str], ...] = (
    ("Ada", _DASH, "adb ads", ""),
    ("Assembly", _SEMICOLON, "asm", ""),
    ("Awk", _HASH, "awk", ""),
    ("Batch", _BATCH, "bat cmd", ""),
    ("C", _SLASH, "c h", ""),
    ("C#", _SLASH, "cs", ""),
    ("C++", _SLASH, "cpp cc cxx c++ hpp hh hxx h++ inl", ""),
    ("CMake", _CMAKE, "cmake", "CMakeLists.txt"),
    ("CSS", _STAR, "css", ""),
    ("CUDA", _SLASH, "cu cuh", ""),
    ("Clojure", _SEMICOLON, "clj cljs cljc", ""),
    ("CoffeeScript", _HASH, "coffee", ""),
    ("Common Lisp", _LISP, "lisp lsp", ""),
    ("Cython", _HASH, "pyx pxd pxi", ""),
    ("D", _SLASH, "d", ""),
    ("Dart", _SLASH, "dart", ""),
    ("Dockerfile", _HASH, "dockerfile", "Dockerfile Containerfile"),
    ("Elixir", _HASH, "ex exs", ""),
    ("Elm", _HASKELL, "elm", ""),
    ("Emacs Lisp", _SEMICOLON, "el", ""),
    ("Erlang", _PERCENT, "erl hrl", ""),
    ("F#", _FSHARP, "fs fsi fsx", ""),
    ("Fortran", _BANG, "f90 f95 f03 f08", ""),
    ("GLSL", _SLASH, "glsl vert frag", ""),
    ("Go", _SLASH, "go", ""),
    ("GraphQL", _HASH, "graphql gql", ""),
    ("Groovy", _SLASH, "groovy gradle", "Jenkinsfile"),
    ("HTML", _MARKUP, "html htm xhtml", ""),
    ("Haskell", _HASKELL, "hs", ""),
    ("Java", _SLASH, "java", ""),
    ("JavaScript", _SLASH, "js jsx mjs cjs", ""),
    ("Julia", _JULIA, "jl", ""),
    ("Kotlin", _SLASH, "kt kts", ""),
    ("Less", _SLASH, "less", ""),
    ("Lua", _LUA, "lua", ""),
    ("MATLAB", _MATLAB, "m", ""),
    ("Makefile", _HASH, "mk mak", "Makefile makefile GNUmakefile"),
    ("Markdown", _NONE, "md markdown", ""),
    ("Nim", _HASH, "nim", ""),
    ("Nix", Comments(("#",), (("/*", "*/"),)), "nix", ""),
    ("OCaml", _ML, "ml mli", ""),
    ("Objective-C++", _SLASH, "mm", ""),
    ("PHP", _PHP, "php phtml", ""),
    ("Pascal", _PASCAL, "pas pp", ""),
    ("Perl", _HASH, "pl pm", ""),
    ("PowerShell", _POWERSHELL, "ps1 psm1 psd1", ""),
    ("Protocol Buffers", _SLASH, "proto", ""),
    ("Python", _HASH, "py pyi pyw", "SConstruct SConscript"),
    ("R", _HASH, "r R", ""),
    ("Racket", _LISP, "rkt", ""),
    ("Ruby", Comments(("#",), (("=begin", "=end"),)), "rb rake gemspec", "Rakefile Gemfile"),
    ("Rust", _SLASH, "rs", ""),
    ("SCSS", _SLASH, "scss", ""),
    ("SQL", _SQL, "sql", ""),
    ("Scala", _SLASH, "scala sc", ""),
    ("Scheme", _LISP, "scm ss sld", ""),
    ("Shell", _HASH, "sh bash zsh ksh fish", ""),
    ("Solidity", _SLASH, "sol", ""),
    ("Starlark", _HASH, "bzl", "BUILD BUILD.bazel WORKSPACE"),
    ("Svelte", _MARKUP, "svelte", ""),
    ("Swift", _SLASH, "swift", ""),
    ("TOML", _HASH, "toml", ""),
    ("Tcl", _HASH, "tcl", ""),
    ("TeX", _PERCENT, "tex sty cls", ""),
    ("TypeScript", _SLASH, "ts tsx mts cts", ""),
    ("VHDL", _DASH, "vhd vhdl", ""),
    ("Verilog", _SLASH, "v vh sv svh", ""),
    ("Vim Script", Comments(('"',)), "vim", ""),
    ("Visual Basic", _QUOTE, "vb vbs bas", ""),
    ("Vue", _MARKUP, "vue", ""),
    ("XML", _MARKUP, "xml xsd xsl xslt", ""),
    ("YAML", _HASH, "yml yaml", ""),
    ("Zig", _SLASH, "zig", ""),
    ("reStructuredText", _NONE, "rst", ""),
)
_BY_SUFFIX = {
    suffix: Language(name, syntax) for name, syntax, suffixes, _ in _TABLE for suffix in suffixes.split()
}
_BY_NAME = {whole: Language(name, syntax) for name, syntax, _, names in _TABLE for whole in names.split()}
BY_LANGUAGE = {name: Language(name, syntax) for name, syntax, _, _ in _TABLE}


def language_of(path: str) -> Language | None:
    """Return the language of a file by its name, None if it is not one of the table."""
    name = PurePosixPath(path).name
    suffix = name.rpartition(".")[2] if "." in name else ""
    return _BY_NAME.get(name) or _BY_SUFFIX.get(suffix) or _BY_SUFFIX.get(suffix.lower())
