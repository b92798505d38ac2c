"""The drawn tree is the real one."""

from __future__ import annotations

import re

from criadero import errors
from criadero.errors import ConfigError, CriaderoError


def drawn() -> dict[str, tuple[str, int]]:
    """Class name -> (name of the class above it, exit code), read from the module's docstring."""
    found: dict[str, tuple[str, int]] = {}
    above: list[tuple[int, str]] = [(-1, "Exception")]
    for line in errors.__doc__.splitlines():
        match = re.match(r"^( {4}[│ ]*(?:[├└]── )?)(\w+) +exit (\d+) ", line)
        if match:
            depth, name, code = len(match[1]), match[2], int(match[3])
            while above[-1][0] >= depth:
                above.pop()
            found[name] = (above[-1][1], code)
            above.append((depth, name))
    return found


def test_the_tree_drawn_in_the_module_is_the_tree_of_the_classes():
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, CriaderoError)]
    assert drawn() == {c.__name__: (c.__bases__[0].__name__, c.exit_code) for c in classes}


def test_exit_codes_are_those_promised():
    codes = {name: code for name, (_, code) in drawn().items()}
    assert {name for name, code in codes.items() if code == 2} == {"UsageError", "ConfigError"}
    assert {name for name, code in codes.items() if code == 75} == {"StoppedEarly"}
    assert set(codes.values()) == {1, 2, 75}


def test_the_hint_is_a_line_of_its_own():
    assert str(ConfigError("it is wrong", hint="make it right")) == "it is wrong\nhint: make it right"
    assert str(ConfigError("it is wrong")) == "it is wrong"
