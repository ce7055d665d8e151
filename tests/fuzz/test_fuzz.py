"""The first few hundred spends of the long run, and that a disagreement would be noticed. ``make fuzz`` does the rest."""

import dataclasses

import pytest

from escrow.core.spends import SpendKind, classify
from tests.escrow.interpreter import Fails
from tests.fuzz import __main__ as fuzz
from tests.fuzz import opinions, raws
from tests.fuzz.opinions import Disagreement, check, check_signature
from tests.fuzz.raws import check_raw
from tests.fuzz.spends import BENDS, KINDS, Case, make_case


def test_the_first_spends_and_steps(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--spends", "400", "--steps", "150"]) == 0
    told = capsys.readouterr().out
    assert "400 spends and as many bytes, 150 steps of a chain, 0 disagreements" in told
    for name in (*KINDS, *BENDS, "a transaction", "trailing-bytes", "balance", "reward"):
        assert f"\n{name} " in told


def test_a_spend_can_be_made_again() -> None:
    assert make_case(7, 3) == make_case(7, 3)
    assert make_case(7, 3) != make_case(8, 3)


def good(kind: str) -> Case:
    """The first spend of a kind with nothing bent that the kernel takes."""
    cases = (make_case(1, number) for number in range(10_000))
    return next(one for one in cases if one.kind == kind and one.bend == "nothing" and check(one)[0])


def test_a_wrong_verdict_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def no(*_: object) -> None:
        raise Fails("just so")

    case = good("refund")
    monkeypatch.setattr(opinions, "judge", no)
    with pytest.raises(Disagreement, match="the kernel says True"):
        check(case)
    assert fuzz.main(["--spends", "40", "--steps", "0"]) == 1
    assert "DISAGREEMENT" in capsys.readouterr().out


def test_bytes_read_otherwise_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    good_raw, long_raw = good("claim").transaction.serialise(), good("claim").transaction.serialise() + b"\x00"
    assert (check_raw(good_raw), check_raw(long_raw)) == ("accepted", "trailing-bytes")
    for raw, theirs in ((good_raw, None), (good_raw, b"other"), (long_raw, long_raw), (good_raw[:-1], b"other")):
        monkeypatch.setattr(raws, "kernel_reads", lambda _, theirs=theirs: theirs)
        with pytest.raises(Disagreement):
            check_raw(raw)


def test_a_wrong_name_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = good("settled")
    monkeypatch.setattr(opinions, "classify", lambda *given: dataclasses.replace(classify(*given), kind=SpendKind.RULED))
    with pytest.raises(Disagreement, match="seen as"):
        check(case)


def test_a_key_that_is_not_seen_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    case = good("claim")
    monkeypatch.setattr(opinions, "key_shown", lambda *_: None)
    with pytest.raises(Disagreement, match="key"):
        check(case)


def test_a_signature_taken_wrongly_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = (make_case(1, number) for number in range(10_000))
    case = next(one for one in cases if one.kind == "locked" and not check_signature(one))
    monkeypatch.setattr(opinions, "is_signed", lambda *_: True)
    with pytest.raises(Disagreement, match="we take"):
        check_signature(case)
    monkeypatch.setattr(opinions, "is_signed", lambda *_: False)
    with pytest.raises(Disagreement, match="low S"):
        check_signature(good("locked"))
