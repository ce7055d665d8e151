"""The journal: groups, order, failure, and a kill at any moment."""

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import peer.journal
from peer.journal import Journal, open_journal, read_rows
from wire.effects import Save
from wire.errors import LocalFault
from wire.ports import Journal as JournalPort


def row(key: int | bytes, value: bytes | None = b"v", table: str = "t") -> Save:
    return Save(table=table, key=key if isinstance(key, bytes) else key.to_bytes(4, "big"), value=value)


async def test_rows_are_kept_replaced_and_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with open_journal(path) as journal:
        port: JournalPort = journal
        await port.commit([row(b"a", b"1"), row(b"b", b"2"), row(b"a", b"3", "other")])
        await port.commit([row(b"a", b"4"), row(b"b", None), row(b"nothing", None)])
        await port.commit([])
        assert dict(await port.load("t")) == {b"a": b"4"}
    async with open_journal(path) as journal:
        assert dict(await journal.load("t")) == {b"a": b"4"}
        assert dict(await journal.load("other")) == {b"a": b"3"}
        assert dict(await journal.load("unknown")) == {}
    assert read_rows(path, "t") == {b"a": b"4"}
    assert path.stat().st_mode & 0o777 == 0o600


async def test_rows_come_in_the_order_of_their_keys(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j") as journal:
        await journal.commit([row(n) for n in (5, 3, 9, 0, 256)])
        assert list(await journal.load("t")) == [n.to_bytes(4, "big") for n in (0, 3, 5, 9, 256)]


async def test_the_settings_that_make_it_durable(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j") as journal:
        connection = journal._connection
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_waiting_commits_are_written_in_one_group_and_released_in_order(tmp_path: Path) -> None:
    released: list[int] = []
    async with open_journal(tmp_path / "j") as journal:

        async def one(number: int, *, task_status: trio.TaskStatus[None]) -> None:
            task_status.started()
            await journal.commit([row(b"same", number.to_bytes(2, "big"))])
            released.append(number)

        await journal._turn.acquire()
        async with trio.open_nursery() as nursery:
            for number in range(100):
                await nursery.start(one, number)
                await trio.testing.wait_all_tasks_blocked()
            assert journal.statistics().waiting == 100
            assert released == []
            # A task other than the owner cannot release; this one is the owner.
            journal._turn.release()
        assert released == list(range(100))
        assert dict(await journal.load("t")) == {b"same": (99).to_bytes(2, "big")}
        told = journal.statistics()
        assert (told.groups, told.largest_group, told.commits, told.rows, told.waiting) == (1, 100, 100, 100, 0)


async def test_the_line_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.journal, "JOURNAL_QUEUE", 3)
    async with open_journal(tmp_path / "j") as journal:
        await journal._turn.acquire()
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(journal.commit, [row(number)])
            await trio.testing.wait_all_tasks_blocked()
            assert journal.statistics().waiting == 3
            journal._turn.release()
        assert len(await journal.load("t")) == 10


async def test_who_is_cancelled_in_line_leaves_nothing_behind(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j") as journal:
        await journal._turn.acquire()
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def cancelled() -> None:
                with scope:
                    await journal.commit([row(1)])

            nursery.start_soon(cancelled)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(journal.commit, [row(2)])
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert journal.statistics().waiting == 1
            journal._turn.release()
        assert list(await journal.load("t")) == [(2).to_bytes(4, "big")]
        assert scope.cancelled_caught


async def test_closing_writes_who_is_in_line_and_later_callers_are_told(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j") as journal, trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(journal.commit, [row(number)])
        await trio.testing.wait_all_tasks_blocked(0.001)
        await journal.close()
    assert len(read_rows(tmp_path / "j", "t")) == 20
    for late in (journal.commit([row(1)]), journal.load("t"), journal.checkpoint()):
        with pytest.raises(LocalFault, match="is closed") as caught:
            await late
        assert caught.value.code == "journal-closed"
    await journal.close()


async def test_the_body_s_own_error_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_journal(tmp_path / "j"):
            raise ZeroDivisionError


@pytest.mark.parametrize(
    ("pragma", "code"), [("PRAGMA query_only=ON", "journal-unwritable"), ("PRAGMA max_page_count=8", "disk-full")]
)
async def test_a_failed_commit_fails_everybody_until_it_is_opened_anew(tmp_path: Path, pragma: str, code: str) -> None:
    path = tmp_path / "j"
    faults: list[LocalFault] = []
    async with open_journal(path) as journal:
        await journal.commit([row(1, b"kept")])
        journal._connection.execute(pragma)

        async def fails(number: int) -> None:
            with pytest.raises(LocalFault) as caught:
                await journal.commit([row(number, bytes(200_000))])
            faults.append(caught.value)

        async with trio.open_nursery() as nursery:
            for number in range(2, 6):
                nursery.start_soon(fails, number)
        await fails(9)
        assert {fault.code for fault in faults} == {code}
        assert len(faults) == len({id(fault) for fault in faults}) == 5
        assert str(path) in faults[0].sentence
        assert journal.statistics().failed == faults[0].sentence
        with pytest.raises(LocalFault):
            await journal.load("t")
    async with open_journal(path) as journal:
        assert dict(await journal.load("t")) == {(1).to_bytes(4, "big"): b"kept"}
        await journal.commit([row(2)])


async def test_a_group_is_all_or_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with open_journal(path) as journal:
        journal._connection.execute("PRAGMA max_page_count=8")
        with pytest.raises(LocalFault):
            await journal.commit([row(1), row(2, bytes(200_000))])
    assert read_rows(path, "t") == {}


async def test_checkpoint_empties_the_log(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "j") as journal:
        await journal.commit([row(n, bytes(1_000)) for n in range(100)])
        assert (tmp_path / "j-wal").stat().st_size > 0
        await journal.checkpoint()
        assert (tmp_path / "j-wal").stat().st_size == 0
        assert len(read_rows(tmp_path / "j", "t")) == 100


async def _refusal(path: Path) -> LocalFault:
    with pytest.raises(LocalFault) as caught:
        async with open_journal(path):
            pytest.fail("it opened")
    assert str(path) in caught.value.sentence
    assert "\n" not in caught.value.sentence
    return caught.value


async def test_files_that_are_no_journal(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b"this is certainly not a database " * 100)
    assert (await _refusal(text)).code == "journal-damaged"
    other = tmp_path / "other"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    assert (await _refusal(other)).code == "journal-foreign"
    later = tmp_path / "later"
    async with open_journal(later) as journal:
        journal._connection.execute("PRAGMA user_version=2")
    assert (await _refusal(later)).code == "journal-foreign"
    assert text.read_bytes().startswith(b"this is certainly")


async def test_a_damaged_journal_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j"
    async with open_journal(path) as journal:
        await journal.commit([row(n, bytes(2_000)) for n in range(200)])
    raw = bytearray(path.read_bytes())
    for start in range(8_192, len(raw), 4_096):
        raw[start : start + 200] = os.urandom(200)
    path.write_bytes(raw)
    assert (await _refusal(path)).code == "journal-damaged"


async def test_places_where_no_journal_can_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    assert (await _refusal(tmp_path / "folder")).code == "journal-unwritable"
    assert (await _refusal(tmp_path / "missing" / "j")).code == "journal-unwritable"
    with pytest.raises(LocalFault):
        read_rows(tmp_path / "missing" / "j", "t")


KEPT = st.lists(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([b"", b"1", b"2"]), st.none() | st.binary(max_size=5)), max_size=5),
    max_size=8,
)


@given(KEPT)
@settings(max_examples=40, deadline=None)
def test_it_is_a_dictionary_of_dictionaries(groups: list[list[tuple[str, bytes, bytes | None]]]) -> None:
    model: dict[str, dict[bytes, bytes]] = {"a": {}, "b": {}}

    async def main(path: Path) -> None:
        async with open_journal(path) as journal, trio.open_nursery() as nursery:
            for group in groups:
                rows = [Save(table=table, key=key, value=value) for table, key, value in group]
                for one in rows:
                    if one.value is None:
                        model[one.table].pop(one.key, None)
                    else:
                        model[one.table][one.key] = one.value
                scheduled = trio.Event()

                async def commit(rows: list[Save] = rows, scheduled: trio.Event = scheduled) -> None:
                    scheduled.set()
                    await journal.commit(rows)

                nursery.start_soon(commit)
                await scheduled.wait()
        for table, rows_then in model.items():
            assert read_rows(path, table) == rows_then

    with tempfile.TemporaryDirectory() as folder:
        trio.run(main, Path(folder) / "j")


COMMITTER = """
import sys, trio
from pathlib import Path
from peer.journal import open_journal
from wire.effects import Save

async def main():
    async with open_journal(Path(sys.argv[1])) as journal, trio.open_nursery() as nursery:
        async def commit(lane):
            number = 0
            while True:
                key = lane.to_bytes(1, "big") + number.to_bytes(4, "big")
                await journal.commit([Save(table="t", key=key, value=b"first"), Save(table="u", key=key, value=b"second")])
                sys.stdout.write(key.hex() + "\\n")
                sys.stdout.flush()
                number += 1
        for lane in range(8):
            nursery.start_soon(commit, lane)

trio.run(main)
"""


@pytest.mark.parametrize("acknowledged_before_the_kill", [1, 50, 400])
def test_every_acknowledged_row_survives_a_kill(tmp_path: Path, acknowledged_before_the_kill: int) -> None:
    path = tmp_path / "j"
    with subprocess.Popen([sys.executable, "-c", COMMITTER, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(acknowledged_before_the_kill)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
    acknowledged = {bytes.fromhex(line.strip()) for line in told if line.endswith("\n")}
    assert len(acknowledged) >= acknowledged_before_the_kill

    async def load() -> tuple[set[bytes], set[bytes]]:
        async with open_journal(path) as journal:
            return set(await journal.load("t")), set(await journal.load("u"))

    first, second = trio.run(load)
    assert acknowledged <= first
    assert first == second
    for lane in range(8):
        numbers = [int.from_bytes(key[1:], "big") for key in sorted(first) if key[0] == lane]
        assert numbers == list(range(len(numbers)))


async def test_two_at_once_see_a_sentence_not_a_mixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.journal, "_BUSY_S", 0.05)
    path = tmp_path / "j"
    async with open_journal(path) as first:
        first._connection.execute("BEGIN IMMEDIATE")
        async with open_journal(path) as second:
            with pytest.raises(LocalFault, match="held by another program"):
                await second.commit([row(1)])
        first._connection.execute("ROLLBACK")
        await first.commit([row(2)])
    assert isinstance(first, Journal)
