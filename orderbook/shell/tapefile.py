"""The tape's file: what has changed is written every few seconds, in one SQLite file of its own.

It is statistics, not money. So it is apart from the journal, is not synchronised to the disk at every write, and a fault of it
(disk full, damaged, read-only) is told to the owner and ends nothing but the writing: the node goes on with what it has in
memory.
A file that is damaged or not ours is left as it is.
"""

import json
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

import trio
import trio.to_thread

from orderbook.core.tape import Drained
from orderbook.core.timeslots import Row
from wire.errors import LocalFault
from wire.moments import SECOND, Instant

T = TypeVar("T")

_APPLICATION_ID: Final = 0x4257_5450  # "BWTP"
_FORMAT: Final = 1
_BUSY_S: Final = 5.0
_NO_ROW: Final = (-1, ())  # which no tape takes for one

_SCHEMA: Final = (
    "CREATE TABLE tape (book BLOB NOT NULL, series INTEGER NOT NULL, length_s INTEGER NOT NULL, begin_s INTEGER NOT NULL, "
    "numbers TEXT NOT NULL, PRIMARY KEY (book, series, length_s, begin_s)) WITHOUT ROWID"
)
_PUT: Final = "INSERT OR REPLACE INTO tape VALUES (?, ?, ?, ?, ?)"
_FORGET_OLD: Final = "DELETE FROM tape WHERE book = ? AND series = ? AND length_s = ? AND begin_s < ?"
_FORGET_FUTURE: Final = "DELETE FROM tape WHERE begin_s > ?"
_FORGET_BOOK: Final = "DELETE FROM tape WHERE book = ?"
_LOAD: Final = "SELECT book, series, length_s, begin_s, numbers FROM tape ORDER BY book, series, length_s, begin_s"


class TapeFile:
    """Made by ``open_tape_file``. Every method raises ``LocalFault``."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._thread = trio.CapacityLimiter(1)  # SQLite is only ever in one thread

    async def load(self, now: Instant) -> list[tuple[bytes, int, int, Row]]:
        """Everything, ascending. What cannot be read at all comes as a row that no tape takes. What lies after ``now`` a wrong
        clock has written: it is deleted, so that it does not come true one day.
        """

        def read() -> list[tuple[bytes, int, int, Row]]:
            self._connection.execute(_FORGET_FUTURE, (now // SECOND,))
            return list(_read(self._connection))

        return await self._in_thread(read)

    async def keep(self, drained: Drained) -> None:
        """Write what has changed, in one transaction."""
        if drained.gone or drained.written:
            await self._in_thread(lambda: _write(self._connection, drained))

    async def close(self) -> None:
        """Let go of the file."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._connection.close, limiter=self._thread)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._thread)
        except sqlite3.Error as error:
            raise _fault(self._path, error) from None


def _read(connection: sqlite3.Connection) -> Iterator[tuple[bytes, int, int, Row]]:
    for book, series, length, begin, text in connection.execute(_LOAD):
        yield bytes(book), int(series), int(length), _row(begin, text)


def _row(begin: object, text: str) -> Row:
    try:
        numbers = json.loads(text)
    except ValueError:
        return _NO_ROW
    if type(begin) is not int or type(numbers) is not list or not all(type(one) is int for one in numbers):
        return _NO_ROW
    return begin, tuple(numbers)


def _write(connection: sqlite3.Connection, drained: Drained) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(_FORGET_BOOK, [(book,) for book in drained.gone])
        for one in drained.written:
            place = (one.book, int(one.series), one.length_s)
            connection.executemany(_PUT, [(*place, begin, json.dumps(numbers)) for begin, numbers in one.rows])
            connection.execute(_FORGET_OLD, (*place, one.oldest_s))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _fault(path: Path, error: sqlite3.Error) -> LocalFault:
    """The sentence that tells the owner what to do about ``error``."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return LocalFault("tape-damaged", f"the price history {path} is damaged ({error}); delete it to begin a new one")
    if name.startswith("SQLITE_FULL"):
        return LocalFault("tape-full", f"the price history {path} cannot grow: the disk is full; make room and restart the node")
    return LocalFault("tape-failed", f"the price history {path} cannot be kept: {error}; see to the disk and restart the node")


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Check the file, lay out a new one, and set the connection up; a file that is not ours is only looked at."""
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        found = " ".join(str(verdict).split())
        raise LocalFault("tape-damaged", f"the price history {path} is damaged ({found}); delete it to begin a new one")
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (form,) = connection.execute("PRAGMA user_version").fetchone()
    fresh = (application, form) == (0, 0) and connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    if not fresh and (application, form) != (_APPLICATION_ID, _FORMAT):
        raise LocalFault("tape-foreign", f"the file {path} is no price history that this version can read; move it away")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    if fresh:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(_SCHEMA)
        connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version={_FORMAT}")
        connection.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise LocalFault("tape-failed", f"the price history {path} cannot be opened: {reason}; see to its permissions") from None
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
    except sqlite3.Error as error:
        connection.close()
        raise _fault(path, error) from None
    except LocalFault:
        connection.close()
        raise
    return connection


@asynccontextmanager
async def open_tape_file(path: Path) -> AsyncIterator[TapeFile]:
    """The file ``path``, made when missing, closed at the end. Raises ``LocalFault``."""
    file = TapeFile(path, await trio.to_thread.run_sync(_connect, path))
    try:
        yield file
    finally:
        await file.close()
