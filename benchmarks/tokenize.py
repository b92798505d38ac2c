"""Encoding speed against sentencepiece; see tokenizer_speed.py for what is measured and printed.

The name of this file is also that of a standard module. Python looks into a script's folder first, so every
script beside this one would get it in place of the standard module: imported, it hands that over.
"""  # noqa: A005

from __future__ import annotations

if __name__ == "__main__":
    from tokenizer_speed import main

    main()
else:
    import importlib.util
    import os
    import sys

    _path = os.path.join(os.path.dirname(os.__file__), "tokenize.py")
    _spec = importlib.util.spec_from_file_location("tokenize", _path)
    assert _spec is not None
    assert _spec.loader is not None
    sys.modules["tokenize"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["tokenize"])
