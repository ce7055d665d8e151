"""The tape's file: it comes back, it stays small, and whatever is wrong with it has a name and ends nothing else."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import cast

import pytest
import trio

from orderbook.core.tape import Drained, Series, Tape
from orderbook.core.timeslots import SLOTS_S, Row
from orderbook.shell.tapefile import TapeFile, open_tape_file
from peer.node.taping import Recorder, open_recorder
from wire.errors import LocalFault
from wire.limits import TAPE_BOOKS_MAX, TAPE_EPOCHS_MAX, TAPE_SLOTS_MAX, TAPE_WRITE_S
from wire.moments import SECOND, Instant
from wire.network import REGTEST

BOOK = bytes(31) + b"\x01"
NOW = Instant(1_800_000_000 * SECOND)
EPOCH = 900_000_000


def rows(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM tape").fetchone()
    return int(count)


async def write(path: Path, tape: Tape) -> None:
    async with open_tape_file(path) as file:
        await file.keep(tape.drain())


async def read(path: Path) -> Tape:
    tape = Tape(REGTEST.clock)
    async with open_tape_file(path) as file:
        tape.load(await file.load(NOW), NOW)
    return tape


async def test_a_history_survives_a_restart_in_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "tape.sqlite"
    async with open_recorder(path, REGTEST.clock, NOW) as recorder:
        recorder.tape.agreed(BOOK, EPOCH - 100, 1 << 40, 1 << 16)
        await recorder.write()
        recorder.tape.agreed(BOOK, EPOCH - 99, 1 << 40, 1 << 16)  # written at the end
    assert path.stat().st_mode & 0o777 == 0o600
    async with open_recorder(path, REGTEST.clock, NOW) as recorder:
        (slot,) = recorder.tape.of(BOOK, Series.AGREED).slots(SLOTS_S["1y"], 0, 1 << 40)
        assert (slot.matches, slot.sum_msat) == (2, 1 << 57)
        assert recorder.fault == ""


async def test_the_file_is_bounded_as_the_memory_is(tmp_path: Path) -> None:
    path, tape = tmp_path / "tape.sqlite", Tape(REGTEST.clock)
    async with open_tape_file(path) as file:
        for epoch in range(0, 40_000, 10):
            tape.agreed(BOOK, epoch, 1, 1)
            if epoch % 1_000 == 0:
                await file.keep(tape.drain())
        await file.keep(tape.drain())
    assert rows(path) == tape.statistics()["slots"] <= len(SLOTS_S) * TAPE_SLOTS_MAX + TAPE_EPOCHS_MAX
    for number in range(TAPE_BOOKS_MAX + 3):
        tape.agreed(bytes([number]) * 32, 50_000 + number, 1, 1)
    await write(path, tape)
    assert rows(path) == tape.statistics()["slots"] == TAPE_BOOKS_MAX * (len(SLOTS_S) + 1)
    assert (await read(path)).statistics()["books"] == TAPE_BOOKS_MAX


async def test_what_a_wrong_clock_wrote_is_deleted(tmp_path: Path) -> None:
    path, tape = tmp_path / "tape.sqlite", Tape(REGTEST.clock)
    tape.agreed(BOOK, EPOCH - 1, 5, 1)
    tape.agreed(BOOK, EPOCH + 1_000, 6, 1)
    await write(path, tape)
    assert (await read(path)).of(BOOK, Series.AGREED).last_msat() == 5
    with closing(sqlite3.connect(path)) as connection:
        (latest,) = connection.execute("SELECT max(begin_s) FROM tape").fetchone()
    assert latest * SECOND <= NOW


@pytest.mark.parametrize("text", ["", "[", "{}", '["a"]', "[1.5]", "[1, 2]", "[1, 1, 1, -1, 1, 1, 1]", "[true]", "9" * 5_000])
async def test_a_row_that_makes_no_sense_is_left_out_and_counted(tmp_path: Path, text: str) -> None:
    path, tape = tmp_path / "tape.sqlite", Tape(REGTEST.clock)
    tape.agreed(BOOK, EPOCH - 1, 5, 1)
    await write(path, tape)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tape SET numbers = ? WHERE length_s = 60", (text,))
    again = await read(path)
    assert again.statistics()["damaged"] == 1
    assert again.of(BOOK, Series.AGREED).slots(60, 0, 1 << 40) == []
    assert len(again.of(BOOK, Series.AGREED).slots(180, 0, 1 << 40)) == 1


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 100)


def _foreign(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (x)")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id=1112888400")
        connection.execute("PRAGMA user_version=2")


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(_garbage, "tape-damaged"), (_foreign, "tape-foreign"), (_newer, "tape-foreign"), (_folder, "tape-failed")],
)
async def test_a_file_that_cannot_be_used_is_named_left_alone_and_done_without(
    tmp_path: Path, spoil: object, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tape.sqlite"
    spoil(path)  # type: ignore[operator]
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(LocalFault) as caught:
        async with open_tape_file(path):
            pass
    assert caught.value.code == code
    async with open_recorder(path, REGTEST.clock, NOW) as recorder:
        assert recorder.fault == caught.value.sentence
        recorder.tape.agreed(BOOK, EPOCH, 5, 1)
        await recorder.write()
        assert recorder.tape.of(BOOK, Series.AGREED).last_msat() == 5
        assert recorder.tape.drain().written == ()
    assert str(path) in caplog.text
    assert (path.read_bytes() if path.is_file() else None) == before


async def test_a_damaged_page_is_found_at_the_start(tmp_path: Path) -> None:
    path, tape = tmp_path / "tape.sqlite", Tape(REGTEST.clock)
    for epoch in range(2_000):
        tape.agreed(BOOK, epoch, epoch, 1)
    await write(path, tape)
    with path.open("r+b") as file:
        file.seek(2 * 4_096)
        file.write(os.urandom(8_192))
    with pytest.raises(LocalFault) as caught:
        async with open_tape_file(path):
            pass
    assert caught.value.code == "tape-damaged"


async def test_a_full_disk_ends_the_writing_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "tape.sqlite"
    async with open_recorder(path, REGTEST.clock, NOW) as recorder:
        recorder.tape.agreed(BOOK, EPOCH - 5_000, 1, 1)
        await recorder.write()
        assert recorder.fault == ""
        file = recorder._file
        assert file is not None
        file._connection.execute("PRAGMA max_page_count=1")  # SQLite's own way to play a full disk
        for epoch in range(EPOCH - 4_999, EPOCH - 3_000):
            recorder.tape.agreed(BOOK, epoch, 5, 1)
        await recorder.write()
        assert "the disk is full" in recorder.fault
        recorder.tape.agreed(BOOK, EPOCH, 7, 1)
        await recorder.write()
        assert recorder.tape.of(BOOK, Series.AGREED).last_msat() == 7
    assert caplog.text.count("the disk is full") == 1
    assert (await read(path)).of(BOOK, Series.AGREED).last_msat() == 1


class Listening:
    """A file that tells when something is written."""

    def __init__(self) -> None:
        self.kept = Drained()
        self.written = trio.Event()

    async def load(self, now: Instant) -> list[tuple[bytes, int, int, Row]]:
        del now
        return []

    async def keep(self, drained: Drained) -> None:
        if drained.written:
            self.kept = drained
            self.written.set()


async def test_the_recorder_writes_by_itself(autojump_clock: trio.abc.Clock) -> None:
    file, recorder = Listening(), Recorder(Tape(REGTEST.clock))
    await recorder.begin(cast(TapeFile, file), NOW)
    begun = autojump_clock.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(recorder.run)
        recorder.tape.agreed(BOOK, EPOCH - 1, 5, 1)
        await file.written.wait()
        nursery.cancel_scope.cancel()
    assert autojump_clock.current_time() - begun == pytest.approx(TAPE_WRITE_S)
    assert {one.book for one in file.kept.written} == {BOOK}
