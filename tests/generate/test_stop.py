"""Stop strings are found across pieces, and nothing of one is let through."""

from hypothesis import given
from hypothesis import strategies as st

from criadero.generate.stop import StopFinder

ab_text = st.text("ab\n", max_size=12)


def test_a_stop_string_across_three_pieces_is_found():
    finder = StopFinder(["END"])
    assert [finder.push(piece) for piece in ["one E", "N", "D two"]] == ["one ", "", ""]
    assert finder.found
    assert finder.finish() == ""


def test_a_false_start_is_let_through_as_soon_as_it_is_one():
    finder = StopFinder(["END"])
    assert [finder.push(piece) for piece in ["EN", "EN", "x"]] == ["", "EN", "ENx"]
    assert not finder.found


def test_what_was_held_back_comes_at_the_end():
    finder = StopFinder(["\n\n"])
    assert finder.push("a\n") == "a"
    assert finder.finish() == "\n"


@given(st.lists(ab_text, max_size=8), st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3))
def test_any_cut_of_the_text_gives_the_text_before_the_first_stop(pieces, stops):
    finder, out = StopFinder(stops), []
    for piece in pieces:
        out.append(finder.push(piece))
        shown = "".join(out)
        assert not any(stop in shown for stop in stops)
        if finder.found:
            break
    out.append(finder.finish())
    text = "".join(pieces)
    # Naive: the shortest prefix of the text that ends in a stop string decides, as a reader would see it.
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    found = "".join(out)
    assert finder.found == bool(ends)
    if ends:
        assert text.startswith(found)
        assert any(text[len(found) :].startswith(stop) for stop in stops)
    else:
        assert found == text
