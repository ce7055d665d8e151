"""``bitwrk receipts``: a home's evidence, and files of it before somebody who has nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
import trio

from peer.cli.app import run
from peer.core.deal import unit_key
from peer.core.logbook import RECEIPT_TABLE
from peer.journal import open_journal
from tests.core.evidence import RESULT, a_bundle, a_log
from wire.canon import pack
from wire.effects import Save


def rows_of(home: Path, bundles: list[Any]) -> None:
    async def write() -> None:
        async with open_journal(home / "journal.sqlite") as journal:
            await journal.commit(
                [Save(table=RECEIPT_TABLE, key=unit_key(one.offer.deal, one.offer.unit), value=pack(one)) for one in bundles]
            )

    home.mkdir(mode=0o700)
    trio.run(write)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    rows_of(tmp_path / "home", a_log())
    return tmp_path / "home"


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_home_without_a_node_has_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["receipts", "list", "--home", str(tmp_path / "new")]) == 1
    assert "no node has run" in capsys.readouterr().err
    rows_of(tmp_path / "empty", [])
    assert run(["receipts", "list", "--home", str(tmp_path / "empty")]) == 0
    assert capsys.readouterr().out == "no receipts\n"


def test_a_deal_is_exported_and_verified_as_a_log(home: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    listed = told(capsys, "receipts", "list", "--home", str(home))
    assert [(one["unit"], one["line"], one["state"]) for one in listed] == [
        (number, number, "signed by both") for number in range(3)
    ]
    deal = listed[0]["deal"]
    assert len(told(capsys, "receipts", "export", listed[1]["id"], "--home", str(home), "--out", str(tmp_path))) == 1
    written = told(capsys, "receipts", "export", deal[:12], "--home", str(home), "--out", str(tmp_path))
    files = [one["file"] for one in written]
    shown = told(capsys, "receipts", "verify", *files)
    assert [one["step"] for one in shown].count("payment") == 3
    assert shown[-1]["step"] == "log"
    assert run(["receipts", "verify", *files[1:]]) == 1
    assert "line 0 of the log is missing" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["abc", "zz.zz", "abcdef.x"])
def test_what_is_no_id_makes_no_sense(home: Path, name: str) -> None:
    assert run(["receipts", "export", name, "--home", str(home)]) == 2


def test_an_unknown_id_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["receipts", "export", "0" * 16 + ".0", "--home", str(home)]) == 1
    assert "receipts list" in capsys.readouterr().err


def test_work_and_result_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, work, result = tmp_path / "a.receipt", tmp_path / "work", tmp_path / "result"
    file.write_bytes(pack(a_bundle()))
    work.write_bytes(b"work 0")
    result.write_bytes(RESULT)
    shown = told(capsys, "receipts", "verify", str(file), "--work", str(work), "--result", str(result))
    assert [one["step"] for one in shown][-2:] == ["work", "result"]
    result.write_bytes(RESULT + b".")
    assert run(["receipts", "verify", str(file), "--result", str(result)]) == 1
    assert "is not the result" in capsys.readouterr().err


def test_what_does_not_hold_is_refused_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.receipt"
    for raw, words in ((b"rubbish", "not a bundle"), (bytes(600_000), "larger"), (None, "cannot be read")):
        file.unlink(missing_ok=True)
        if raw is not None:
            file.write_bytes(raw)
        assert run(["receipts", "verify", str(file)]) == 1
        assert words in capsys.readouterr().err


def test_a_bad_result_is_shown_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.receipt"
    file.write_bytes(pack(a_bundle(promised=b"something else", ciphertext=True)))
    assert [one["step"] for one in told(capsys, "receipts", "verify", str(file))][-1] == "bad-result"
