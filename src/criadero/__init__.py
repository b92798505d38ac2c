"""criadero: raise your own LLaMA, from text to a trained model that talks.

The public functions are the command line's verbs; they are imported when first used, so that
`import criadero` costs nothing. See docs/reference/api.md for what is stable.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from criadero.api import build_shards, generate, import_model, load_model, train, train_tokenizer

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "build_shards",
    "generate",
    "import_model",
    "load_model",
    "train",
    "train_tokenizer",
]


class _Package(ModuleType):
    """Lets `criadero.train` and `criadero.generate` be functions, although subpackages have these names.

    The import system puts a subpackage into its parent when it is first imported, which would hide the
    function from then on. `from criadero.train.loop import ...` does not need that attribute.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name not in __all__ or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name in __all__:
        from criadero import api

        return getattr(api, name)
    raise AttributeError(f"module `criadero` has no attribute `{name}`")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
