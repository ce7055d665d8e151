"""The journal: small rows that survive a kill at any moment, in one SQLite file.

**Group commit.** Whoever wants rows kept puts them in line and waits for the turn, a fair lock. Whoever gets the turn and finds
his rows still waiting writes *everything* that waits in one transaction, in the order it came; the others find theirs written
when their turn comes. So an idle journal commits at once, a busy one commits in groups, callers go on in exactly the order in
which they asked, and no task runs in the background.

**Durability.** WAL with ``synchronous=FULL``: a commit returns after the log has been synchronised to the disk.

**Failure.** When a commit fails (disk full, read-only, damaged) everybody in that group gets the ``LocalFault``, and so does
every later caller until the journal is opened anew: after a failed write only the disk knows what it holds, and reading it again
is the one way to find out. A node whose journal has failed can sign and spend nothing.

**Cancellation.** A caller cancelled while still in line leaves nothing behind; once its group is being written its rows are kept.
"""

import os
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeVar

import trio
import trio.to_thread

from wire.effects import Save
from wire.errors import LocalFault
from wire.limits import JOURNAL_QUEUE

T = TypeVar("T")

_APPLICATION_ID: Final = 0x4257_524B  # "BWRK"
_FORMAT: Final = 1
_BUSY_S: Final = 5.0

_SCHEMA: Final = "CREATE TABLE kept (place TEXT NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (place, key))"
_PUT: Final = "INSERT INTO kept VALUES (?, ?, ?) ON CONFLICT (place, key) DO UPDATE SET value = excluded.value"
_FORGET: Final = "DELETE FROM kept WHERE place = ? AND key = ?"
_LOAD: Final = "SELECT key, value FROM kept WHERE place = ? ORDER BY key"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStatistics:
    """How the journal is. ``failed`` is the sentence of the fault that stopped it, or None."""

    commits: int
    rows: int
    groups: int
    largest_group: int
    waiting: int
    failed: str | None


@dataclass(slots=True, eq=False)
class _Waiting:
    rows: tuple[Save, ...]
    written: bool = False
    fault: LocalFault | None = None


class Journal:
    """Keeps ``wire.ports.Journal``'s promise. Made by ``open_journal``; one at a time per file."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._thread = trio.CapacityLimiter(1)  # SQLite is only ever in one thread
        self._turn = trio.Lock()
        self._places = trio.Semaphore(JOURNAL_QUEUE)
        self._line: deque[_Waiting] = deque()
        self._failed: LocalFault | None = None
        self._commits = self._rows = self._groups = self._largest = 0

    async def commit(self, rows: Sequence[Save]) -> None:
        """Make all rows durable in one transaction, then return. Raises ``LocalFault``; then nothing of it counts as kept."""
        async with self._places:
            self._check()
            mine = _Waiting(rows=tuple(rows))
            self._line.append(mine)
            try:
                async with self._turn:
                    if not mine.written and mine.fault is None:
                        with trio.CancelScope(shield=True):
                            await self._write_line()
            finally:
                if mine in self._line:  # cancelled before its turn
                    self._line.remove(mine)
        if mine.fault is not None:
            raise LocalFault(mine.fault.code, mine.fault.sentence)

    async def load(self, table: str) -> Mapping[bytes, bytes]:
        """All rows of a table in the order of their keys, as last committed."""
        self._check()

        def read() -> dict[bytes, bytes]:
            return dict(self._connection.execute(_LOAD, (table,)))

        return MappingProxyType(await self._in_thread(read))

    async def checkpoint(self) -> None:
        """Move the write-ahead log into the file and empty it. Useful before a backup; never needed for safety."""
        self._check()
        async with self._turn:
            await self._in_thread(lambda: self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())

    def statistics(self) -> JournalStatistics:
        """Counts since it was opened."""
        return JournalStatistics(
            commits=self._commits,
            rows=self._rows,
            groups=self._groups,
            largest_group=self._largest,
            waiting=len(self._line),
            failed=None if self._failed is None else self._failed.sentence,
        )

    async def close(self) -> None:
        """Write what is in line and let go of the file. Later calls find the journal closed."""
        with trio.CancelScope(shield=True):
            async with self._turn:
                if self._line and self._failed is None:
                    await self._write_line()
                if self._failed is None or self._failed.code != "journal-closed":
                    self._failed = LocalFault("journal-closed", f"the journal {self._path} is closed")
                    await trio.to_thread.run_sync(self._connection.close, limiter=self._thread)

    def _check(self) -> None:
        if self._failed is not None:
            raise LocalFault(self._failed.code, self._failed.sentence)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._thread)
        except sqlite3.Error as error:
            self._failed = _fault(self._path, error)
            raise LocalFault(self._failed.code, self._failed.sentence) from None

    async def _write_line(self) -> None:
        group = tuple(self._line)
        self._line.clear()
        fault = self._failed
        if fault is None:
            try:
                await self._in_thread(lambda: self._write(group))
            except LocalFault as failed:
                fault = failed
        for one in group:
            one.fault = fault
            one.written = fault is None
        if fault is None:
            self._commits += len(group)
            self._rows += sum(len(one.rows) for one in group)
            self._groups += 1
            self._largest = max(self._largest, len(group))

    def _write(self, group: Sequence[_Waiting]) -> None:
        last = {(row.table, row.key): row.value for one in group for row in one.rows}
        if not last:
            return
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(_FORGET, [place for place, value in last.items() if value is None])
            self._connection.executemany(_PUT, [(*place, value) for place, value in last.items() if value is not None])
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _fault(path: Path, error: sqlite3.Error) -> LocalFault:
    """The sentence that tells the owner what to do about ``error``."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return LocalFault("disk-full", f"the journal {path} cannot grow: the disk is full; make room and start the node again")
    if name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_CANTOPEN")):
        return LocalFault(
            "journal-unwritable", f"the journal {path} cannot be written: {error}; mend its permissions and start again"
        )
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return LocalFault("journal-busy", f"the journal {path} is held by another program; end that and start the node again")
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return _damaged(path, str(error))
    return LocalFault("journal-failed", f"the journal {path} failed: {error}; see to the disk and start the node again")


def _damaged(path: Path, finding: str) -> LocalFault:
    found = " ".join(finding.split())  # SQLite's findings come in several lines
    return LocalFault(
        "journal-damaged", f"the journal {path} is damaged ({found}); keep a copy of it and restore one that is whole"
    )


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Set the connection up, check the file, and lay out a new one."""
    if connection.execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
        raise LocalFault("journal-failed", f"the journal {path} cannot have a write-ahead log here; use a local disk")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA secure_delete=ON")  # forgotten rows may have held secrets
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _damaged(path, str(verdict))
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (form,) = connection.execute("PRAGMA user_version").fetchone()
    if (application, form) == (_APPLICATION_ID, _FORMAT):
        return
    if (application, form) != (0, 0) or connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
        raise LocalFault("journal-foreign", f"the file {path} is not a journal that this version can read")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_SCHEMA)
    connection.execute(f"PRAGMA application_id={_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version={_FORMAT}")
    connection.execute("COMMIT")


def _connect(path: Path) -> sqlite3.Connection:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # SQLite gives its log the same mode
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise LocalFault("journal-unwritable", f"the journal {path} cannot be opened: {reason}") from None
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
async def open_journal(path: Path) -> AsyncIterator[Journal]:
    """The journal in the file ``path``, made when missing, closed at the end. Raises ``LocalFault``."""
    journal = Journal(path, await trio.to_thread.run_sync(_connect, path))
    try:
        yield journal
    finally:
        await journal.close()


def read_rows(path: Path, table: str) -> dict[bytes, bytes]:
    """All rows of a table, read without opening the journal for writing; the node may be running. Raises ``LocalFault``."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as connection:
            return dict(connection.execute(_LOAD, (table,)))
    except sqlite3.Error as error:
        raise _fault(path, error) from None
