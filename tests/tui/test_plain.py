"""Strings of strangers: what is left of them, and what never is."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.plain import DEPTH_MAX, LIST_MAX_ITEMS, SUBSTITUTE, TEXT_MAX_CHARS, clean, clean_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("net.bitwrk/rays/1", "net.bitwrk/rays/1"),
        ("naïve Größe 漢字", "naïve Größe 漢字"),
        ("[red]bold[/] stays", "[red]bold[/] stays"),
        ("\x1b[31mred\x1b[0m", f"{SUBSTITUTE}[31mred{SUBSTITUTE}[0m"),
        ("a\x9b2Jb", f"a{SUBSTITUTE}2Jb"),
        ("one\ntwo\r\n\tthree", "one two   three"),
        ("safe\u202egnp.exe", f"safe{SUBSTITUTE}gnp.exe"),
        ("a\u2066b\u2069c\u200fd", f"a{SUBSTITUTE}b{SUBSTITUTE}c{SUBSTITUTE}d"),
        ("\u05d0\u05d1 100", f"{SUBSTITUTE}{SUBSTITUTE} 100"),
        ("\u0661\u0662 \u0639", f"{SUBSTITUTE}{SUBSTITUTE} {SUBSTITUTE}"),
        ("zero\u200bwidth\ufeff", f"zero{SUBSTITUTE}width{SUBSTITUTE}"),
        ("z" + "\u0301" * 50 + "!", "z\u0301\u0301!"),
        ("\u0301start", "start"),
        ("heart\u2764\ufe0f", "heart\u2764"),
        ("line\u2028break\u00a0end", "line break end"),
        ("\ud800\ue000\U000e0041", SUBSTITUTE * 3),
    ],
)
def test_what_is_left(told: str, shown: str) -> None:
    assert clean(told) == shown


@given(st.text(st.characters(codec=None)), st.integers(1, 40))
def test_nothing_that_a_terminal_obeys_is_left(told: str, most: int) -> None:
    shown = clean(told, most)
    assert len(shown) <= most
    assert clean(shown, most) == shown
    for char in shown:
        assert char == " " or char.isprintable()
        assert unicodedata.bidirectional(char) not in {
            "R",
            "AL",
            "AN",
            "RLE",
            "LRE",
            "RLO",
            "LRO",
            "RLI",
            "LRI",
            "FSI",
            "PDF",
            "PDI",
        }


def test_long_texts_are_cut_and_say_so() -> None:
    assert clean("x" * (TEXT_MAX_CHARS + 1)) == "x" * (TEXT_MAX_CHARS - 1) + "…"
    assert clean("x" * TEXT_MAX_CHARS) == "x" * TEXT_MAX_CHARS


@given(JSON)
def test_json_keeps_its_numbers_and_loses_its_poison(value: object) -> None:
    fresh = clean_json(value)
    assert clean_json(fresh) == fresh
    if isinstance(value, int | float | None):
        assert fresh == value


def test_endless_json_ends() -> None:
    deep: object = "x"
    for _ in range(50):
        deep = [deep]
    depth = 0
    shown = clean_json(deep)
    while isinstance(shown, list):
        shown, depth = shown[0], depth + 1
    assert (shown, depth) == (None, DEPTH_MAX)
    assert len(clean_json(list(range(LIST_MAX_ITEMS + 7)))) == LIST_MAX_ITEMS
    assert clean_json({"a\x1b": "\x07"}) == {f"a{SUBSTITUTE}": SUBSTITUTE}
