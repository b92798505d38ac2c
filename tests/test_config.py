"""Config files: overrides, all faults at once with a suggestion each, and a saved config loads back equal."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from criadero.config import Config, flatten, load, save, to_values, validate
from criadero.errors import ConfigError


class Wheel(Config):
    spokes: int = Field(default=32, gt=0)
    colour: str | None = None


class Frame(Config):
    length: float = 0.5
    notes: str = ""
    folder: Path = Path("frames")


class Bicycle(Config):
    """A config with a section, an optional section and a list of sections."""

    name: str
    frame: Frame = Frame()
    spare: Wheel | None = None
    wheels: tuple[Wheel, ...] = ()
    gears: tuple[int, ...] = ()


def write(folder: Path, text: str) -> Path:
    path = folder / "bicycle.toml"
    path.write_text(text)
    return path


def problem_of(path: Path | None, *overrides: str) -> str:
    with pytest.raises(ConfigError) as problem:
        load(Bicycle, path, overrides)
    return str(problem.value)


def test_all_faults_come_at_once_with_a_suggestion_in_nested_sections(tmp_path: Path):
    path = write(
        tmp_path,
        """
        nmae = "x"
        colour = "red"
        [frame]
        lenght = 1.0
        notes = 3
        [spare]
        spoke = 5
        [[wheels]]
        spokes = 20
        [[wheels]]
        spokes = -1
        color = "red"
        """,
    )
    assert problem_of(path) == "\n".join(
        [
            f"{path} has 8 faults:",
            "  - `name` is missing",
            "  - `frame.notes` is 3: Input should be a valid string",
            "  - unknown key `frame.lenght`, did you mean `length`?",
            "  - unknown key `spare.spoke`, did you mean `spokes`?",
            "  - `wheels.1.spokes` is -1: Input should be greater than 0",
            "  - unknown key `wheels.1.color`, did you mean `colour`?",
            "  - unknown key `nmae`, did you mean `name`?",
            "  - unknown key `colour`; known are name, frame, spare, wheels, gears",
        ]
    )


def test_one_fault_is_one_fault(tmp_path: Path):
    assert "has 1 fault:\n" in problem_of(write(tmp_path, "gears = [1]"))


def test_overrides_replace_what_the_file_says(tmp_path: Path):
    path = write(tmp_path, 'name = "old"\n[frame]\nlength = 1.0\nnotes = "kept"')
    config = load(Bicycle, path, ["name=new", "frame.length=2.5", "spare.spokes=3", "gears=[1, 2]"])
    assert config == Bicycle(
        name="new", frame=Frame(length=2.5, notes="kept"), spare=Wheel(spokes=3), gears=(1, 2)
    )


def test_the_last_of_two_overrides_wins():
    assert load(Bicycle, None, ["name=a", "name=b"]).name == "b"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("words with spaces", "words with spaces"),
        ("a=b", "a=b"),
        ('"12"', "12"),
        ("'quoted'", "quoted"),
        ("", ""),
        ("C:\\new", "C:\\new"),
        ("# no comment", "# no comment"),
        ("1\nname = 2", "1\nname = 2"),
    ],
)
def test_the_right_side_is_toml_or_else_plain_text(text: str, value: str):
    assert load(Bicycle, None, ["name=x", f"frame.notes={text}"]).frame.notes == value


@pytest.mark.parametrize("override", ["name", "", "=x", "frame.=x", ".name=x", "frame..length=1"])
def test_an_override_without_a_key_or_a_value_is_named(override: str):
    assert f"override `{override}` is not of the form `section.key=value`" in problem_of(None, override)


def test_an_override_below_a_value_is_refused(tmp_path: Path):
    path = write(tmp_path, 'name = "x"\n[[wheels]]\nspokes = 3')
    assert "`name` is a value, not a section" in problem_of(path, "name.first=y")
    assert "`wheels` is a value, not a section" in problem_of(path, "wheels.0.spokes=4")


def test_faults_of_overrides_without_a_file_name_the_overrides():
    assert "the overrides has 1 fault" in problem_of(None, "name=x", "frame.length=long")


def test_a_missing_file_a_folder_and_what_is_not_toml_are_named(tmp_path: Path):
    assert "does not exist\nhint: " in problem_of(tmp_path / "nothing.toml")
    assert "cannot be read: Is a directory" in problem_of(tmp_path)
    assert "is not valid TOML" in problem_of(write(tmp_path, "name = = 3"))
    (tmp_path / "bicycle.toml").write_bytes(b'name = "\xff"')
    assert "is not valid TOML" in problem_of(tmp_path / "bicycle.toml")


def test_nesting_too_deep_to_read_is_a_fault_of_the_config(tmp_path: Path):
    deep = "[" * 100_000
    assert "is not valid TOML" in problem_of(write(tmp_path, f"name = {deep}"))
    assert "frame.length" in problem_of(None, "name=x", f"frame.length={deep}")


def test_a_config_does_not_change():
    with pytest.raises(ValueError, match="frozen"):
        Bicycle(name="x").name = "y"


TEXT = st.text(st.characters(codec="utf-8"))
NUMBER = st.floats(allow_nan=False)
WHEELS = st.builds(Wheel, spokes=st.integers(1, 2**62), colour=st.none() | TEXT)
BICYCLES = st.builds(
    Bicycle,
    name=TEXT,
    frame=st.builds(Frame, length=NUMBER, notes=TEXT),
    spare=st.none() | WHEELS,
    wheels=st.lists(WHEELS, max_size=3).map(tuple),
    gears=st.lists(st.integers(-(2**62), 2**62), max_size=3).map(tuple),
)


@given(config=BICYCLES)
def test_a_saved_config_loads_back_equal(tmp_path_factory: pytest.TempPathFactory, config: Bicycle):
    path = tmp_path_factory.getbasetemp() / "saved.toml"
    save(config, path)
    assert load(Bicycle, path) == config


@given(config=BICYCLES)
def test_a_config_written_as_overrides_is_the_same_config(config: Bicycle):
    flat = flatten(to_values(config))
    overrides = [
        f"{key}={tomli_w.dumps({'v': value}).removeprefix('v = ').strip()}" for key, value in flat.items()
    ]
    if config.wheels:  # a list of sections has no one-line form here
        overrides = [o for o in overrides if not o.startswith("wheels=")]
        config = config.model_copy(update={"wheels": ()})
    if config.spare is not None and "spare.spokes" not in flat:
        return
    assert load(Bicycle, None, overrides) == config


@given(text=st.text())
def test_any_text_is_a_value_or_our_error(text: str):
    try:
        value = load(Bicycle, None, ["name=x", f"frame.notes={text}"]).frame.notes
    except ConfigError:
        return
    plain = value == text
    assert plain or tomllib.loads(f"v = {text}") == {"v": value}


@given(override=st.text())
def test_any_override_is_understood_or_our_error(override: str):
    try:
        found = load(Bicycle, None, ["name=x", override])
    except ConfigError:
        return
    assert isinstance(found, Bicycle)


def test_flat_keys_are_dotted_and_lists_stay_whole():
    values = {"a": {"b": {"c": 1}, "d": [1, {"e": 2}]}, "f": "x"}
    assert flatten(values) == {"a.b.c": 1, "a.d": [1, {"e": 2}], "f": "x"}


def test_values_left_unset_are_not_written():
    assert to_values(validate(Bicycle, {"name": "x"}, where="x")) == {
        "name": "x",
        "frame": {"length": 0.5, "notes": "", "folder": "frames"},
        "wheels": [],
        "gears": [],
    }
