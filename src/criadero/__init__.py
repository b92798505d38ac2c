"""criadero: raise your own LLaMA, from text to a trained model that talks.

The public functions are the command line's verbs; they are imported when first used, so that
`import criadero` costs nothing. See docs/reference/api.md for what is stable.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_PUBLIC = ("build_shards", "generate", "import_model", "load_model", "train", "train_tokenizer")
__all__ = [*_PUBLIC, "__version__"]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from criadero import api

        return getattr(api, name)
    raise AttributeError(f"module `criadero` has no attribute `{name}`")
