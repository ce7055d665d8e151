"""The store's one SQLite file: blobs, the contents made of them, and who wants them kept. Blocking; one thread at a time.

Blobs (chunks and manifest pages) lie once, however many contents use them; ``parts`` says which content uses which. A content
without an id is being put; one that is not complete is being fetched, or was. Blobs are written in the same transaction as the
parts that use them, so none is ever without an owner: a kill at any moment leaves at most unfinished contents; those being
put are forgotten at the next opening and those being fetched are there to be resumed.

SQLite in WAL mode forgets a torn write by itself. It does not notice a bit that changed later: every blob is hashed when it is
read, and one that is not what it was is forgotten, with the completeness of the contents that use it.
"""

import contextlib
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cafs.core.faults import Damaged, NoSuchContent, StoreFull
from cafs.core.manifest import Content, Manifest, Root, open_root
from wire.digest import content_id
from wire.errors import LocalFault, Misbehaved
from wire.limits import STORE_ROW_BYTES

VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE contents (number INTEGER PRIMARY KEY, id BLOB UNIQUE, root BLOB, size INTEGER, digest BLOB,
                       complete INTEGER NOT NULL DEFAULT 0, used INTEGER NOT NULL);
CREATE INDEX contents_by_use ON contents (used);
CREATE TABLE blobs (number INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, length INTEGER NOT NULL);
CREATE TABLE bodies (number INTEGER PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE parts (content INTEGER NOT NULL, blob INTEGER NOT NULL, PRIMARY KEY (content, blob)) WITHOUT ROWID;
CREATE INDEX parts_by_blob ON parts (blob, content);
CREATE TABLE pins (owner TEXT NOT NULL, id BLOB NOT NULL, PRIMARY KEY (owner, id)) WITHOUT ROWID;
CREATE INDEX pins_by_id ON pins (id);
"""
_FREEABLE: Final = "SELECT number FROM contents WHERE id IS NULL OR id NOT IN (SELECT id FROM pins) ORDER BY used, number"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How full a store is. Bytes are those of blobs, each once, and ``STORE_ROW_BYTES`` for every blob and content.

    ``locked_bytes`` belong to contents that are pinned or in use at this moment and cannot be freed.
    """

    quota_bytes: int
    used_bytes: int
    locked_bytes: int
    contents: int
    blobs: int


class Shelf:
    """The tables. Numbers are rows of ``contents``; they are not reused within one opening."""

    def __init__(self, path: Path, quota_bytes: int) -> None:
        self.path = path
        self.quota_bytes = quota_bytes
        self._busy: Counter[int] = Counter()
        self._busy_lock = threading.Lock()
        self._room_used = 0
        try:
            self._db = self._connect()
        except sqlite3.Error as error:
            raise self._fault(error) from None

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0.5)
        try:
            # The exclusive lock keeps a second node off this file, and is given up by a kill.
            for pragma in ("page_size=16384", "locking_mode=EXCLUSIVE", "journal_mode=WAL", "synchronous=NORMAL"):
                db.execute(f"PRAGMA {pragma}")
            db.execute(f"PRAGMA journal_size_limit={64 << 20}")
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={VERSION}; COMMIT")
            elif version != VERSION:
                raise LocalFault("store-version", f"{self.path} was written by another version of this program; move it away")
            db.execute("BEGIN IMMEDIATE")
            db.execute("COMMIT")
        except BaseException:
            db.close()
            raise
        self._db = db
        count, length = db.execute("SELECT count(*), coalesce(sum(length), 0) FROM blobs").fetchone()
        contents = db.execute("SELECT count(*) FROM contents").fetchone()[0]
        self._room_used = length + STORE_ROW_BYTES * (count + contents)
        with self.transaction():
            for (number,) in db.execute("SELECT number FROM contents WHERE id IS NULL").fetchall():
                self._drop(number)
            self._clock = db.execute("SELECT coalesce(max(used), 0) FROM contents").fetchone()[0]
            with contextlib.suppress(StoreFull):
                self._make_room(0)
        return db

    def hold(self, number: int) -> int:
        """A content is in use until ``release`` and is not freed. These two may be called from any thread."""
        with self._busy_lock:
            self._busy[number] += 1
        return number

    def release(self, number: int) -> None:
        """The end of one ``hold``."""
        with self._busy_lock:
            self._busy[number] -= 1
            if not self._busy[number]:
                del self._busy[number]

    def close(self) -> None:
        """Write everything back and let the file go."""
        self._db.close()

    def _fault(self, error: sqlite3.Error) -> LocalFault:
        match getattr(error, "sqlite_errorcode", 0) & 0xFF:
            case sqlite3.SQLITE_FULL:
                return StoreFull("disk-full", f"the disk under {self.path} is full; free some space there")
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                return Damaged("store-damaged", f"{self.path} is damaged; stop the node and move the file away, it is made anew")
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                return LocalFault("store-in-use", f"{self.path} is in use by another process; a store serves one node")
            case sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
                return LocalFault("store-unwritable", f"{self.path} cannot be opened for writing; check its folder and its owner")
            case _:
                return LocalFault("store-fault", f"the content store at {self.path} does not work: {error}")

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All or nothing; ``durable`` also survives a loss of power after it. Raises ``LocalFault`` for the disk's faults."""
        room_used = self._room_used
        try:
            if durable:
                self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            self._room_used = room_used
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error):
                raise self._fault(error) from None
            raise
        finally:
            if durable:
                self._db.execute("PRAGMA synchronous=NORMAL")

    # --- room ---------------------------------------------------------------------------------------------

    def _make_room(self, need_bytes: int) -> None:
        """Free contents that nobody wants, least recently used first, until ``need_bytes`` more fit. Raises ``StoreFull``."""
        if self._room_used + need_bytes <= self.quota_bytes:
            return
        for (number,) in self._db.execute(_FREEABLE).fetchall():
            if number not in self._busy:
                self._drop(number)
                if self._room_used + need_bytes <= self.quota_bytes:
                    return
        raise StoreFull(
            "store-full",
            f"the content store at {self.path} has a quota of {self.quota_bytes >> 20} MiB, and running trades need all of it; "
            "wait for some to end, or raise the quota",
        )

    def _drop(self, number: int) -> None:
        only_here = self._db.execute(
            "SELECT blobs.number, length FROM parts JOIN blobs ON blobs.number = parts.blob WHERE parts.content = ?1"
            " AND NOT EXISTS (SELECT 1 FROM parts AS other WHERE other.blob = parts.blob AND other.content <> ?1)",
            (number,),
        ).fetchall()
        self._db.execute("DELETE FROM parts WHERE content = ?", (number,))
        self._remove_blobs(only_here)
        if self._db.execute("DELETE FROM contents WHERE number = ?", (number,)).rowcount:
            self._room_used -= STORE_ROW_BYTES

    def _remove_blobs(self, blobs: Sequence[tuple[int, int]]) -> None:
        self._db.executemany("DELETE FROM bodies WHERE number = ?", [(number,) for number, _ in blobs])
        self._db.executemany("DELETE FROM blobs WHERE number = ?", [(number,) for number, _ in blobs])
        self._room_used -= sum(length + STORE_ROW_BYTES for _, length in blobs)

    def _tick(self) -> int:
        self._clock += 1
        return int(self._clock)

    def usage(self) -> Usage:
        """How full the store is now."""
        with self._busy_lock:
            busy = set(self._busy)
        pinned = {row[0] for row in self._db.execute("SELECT number FROM contents WHERE id IN (SELECT id FROM pins)")}
        locked = sorted(busy | pinned)
        blobs: dict[int, int] = {}
        for number in locked:
            blobs.update(
                self._db.execute(
                    "SELECT blobs.number, length FROM parts JOIN blobs ON blobs.number = parts.blob WHERE content = ?", (number,)
                )
            )
        return Usage(
            quota_bytes=self.quota_bytes,
            used_bytes=self._room_used,
            locked_bytes=sum(blobs.values()) + STORE_ROW_BYTES * (len(blobs) + len(locked)),
            contents=self._db.execute("SELECT count(*) FROM contents WHERE complete = 1").fetchone()[0],
            blobs=self._db.execute("SELECT count(*) FROM blobs").fetchone()[0],
        )

    # --- contents -----------------------------------------------------------------------------------------

    def find(self, content: bytes, *, complete: bool = True) -> int | None:
        """The number of a content, by default only when all of it is here."""
        row = self._db.execute("SELECT number, complete FROM contents WHERE id = ?", (content,)).fetchone()
        return None if row is None or (complete and not row[1]) else int(row[0])

    def enter(self, content: bytes) -> int:
        """The number of a complete content, used now and held. Raises ``NoSuchContent``."""
        number = self.find(content)
        if number is None:
            raise NoSuchContent("no-such-content", f"content {content.hex()} is not here")
        with self.transaction():
            self._db.execute("UPDATE contents SET used = ? WHERE number = ?", (self._tick(), number))
        return self.hold(number)

    def describe(self, number: int) -> Content:
        """Id, size and digest of a complete content."""
        content, size, digest = self._db.execute("SELECT id, size, digest FROM contents WHERE number = ?", (number,)).fetchone()
        return Content(id=content, size=size, digest=digest)

    def root(self, number: int) -> bytes:
        """The canonical bytes of a content's root. Raises ``NoSuchContent``."""
        row = self._db.execute("SELECT root FROM contents WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise NoSuchContent("no-such-content", "this content is no longer here")
        return bytes(row[0])

    def begin(self) -> int:
        """A new content whose id is not known yet, held."""
        with self.transaction():
            self._make_room(STORE_ROW_BYTES)
            self._room_used += STORE_ROW_BYTES
            number = self._db.execute("INSERT INTO contents (used) VALUES (?)", (self._tick(),)).lastrowid
        return self.hold(int(number or 0))

    def expect(self, content: bytes, root: bytes, size: int) -> int:
        """The content that is going to be fetched, held; what is here of it already stays."""
        number = self.find(content, complete=False)
        if number is None:
            with self.transaction():
                self._make_room(STORE_ROW_BYTES + size if size > self.quota_bytes else STORE_ROW_BYTES)
                self._room_used += STORE_ROW_BYTES
                row = (content, root, size, self._tick())
                number = self._db.execute("INSERT INTO contents (id, root, size, used) VALUES (?, ?, ?, ?)", row).lastrowid
        return self.hold(int(number or 0))

    def claim(self, number: int, blobs: Iterable[bytes]) -> list[bytes]:
        """Those of ``blobs`` that are here, from whichever content; they now belong to this one too."""
        with self.transaction():
            return self._claim(number, blobs)

    def _claim(self, number: int, blobs: Iterable[bytes]) -> list[bytes]:
        held: list[bytes] = []
        for blob in blobs:
            row = self._db.execute("SELECT number FROM blobs WHERE id = ?", (blob,)).fetchone()
            if row is not None:
                self._db.execute("INSERT OR IGNORE INTO parts VALUES (?, ?)", (number, row[0]))
                held.append(blob)
        return held

    def add(self, number: int, blobs: Iterable[tuple[bytes, bytes]]) -> None:
        """Store blobs (id, bytes) as parts of a content; those that are here already are only noted. Raises ``StoreFull``."""
        with self.transaction():
            self._add(number, blobs)

    def _add(self, number: int, blobs: Iterable[tuple[bytes, bytes]]) -> None:
        new = dict(blobs)
        for blob in self._claim(number, list(new)):
            del new[blob]
        if not new:
            return
        need = sum(len(data) + STORE_ROW_BYTES for data in new.values())
        self._make_room(need)
        self._room_used += need
        for blob, data in new.items():
            place = self._db.execute("INSERT INTO blobs (id, length) VALUES (?, ?)", (blob, len(data))).lastrowid
            self._db.execute("INSERT INTO bodies VALUES (?, ?)", (place, data))
            self._db.execute("INSERT INTO parts VALUES (?, ?)", (number, place))

    def seal(self, number: int, blobs: Iterable[tuple[bytes, bytes]], manifest: Manifest, digest: bytes) -> int:
        """Add the last blobs of a content being put and give it its id; the number it has from now on is returned."""
        with self.transaction(durable=True):
            self._add(number, blobs)
            already = self.find(manifest.id, complete=False)
            if already is not None:
                self._db.execute("INSERT OR IGNORE INTO parts SELECT ?, blob FROM parts WHERE content = ?", (already, number))
                self._drop(number)
                number = already
            self._db.execute(
                "UPDATE contents SET id = ?, root = ?, size = ?, digest = ?, complete = 1, used = ? WHERE number = ?",
                (manifest.id, manifest.root, manifest.size, digest, self._tick(), number),
            )
        return number

    def complete(self, number: int, digest: bytes) -> None:
        """A content being fetched is whole and verified."""
        with self.transaction(durable=True):
            row = (digest, self._tick(), number)
            self._db.execute("UPDATE contents SET digest = ?, complete = 1, used = ? WHERE number = ?", row)

    def drop(self, number: int) -> None:
        """Forget a content and the blobs that only it uses."""
        with self.transaction():
            self._drop(number)

    def drop_unsealed(self, number: int) -> None:
        """Forget a content being put, unless it has its id already."""
        with self.transaction():
            if self._db.execute("SELECT 1 FROM contents WHERE number = ? AND id IS NULL", (number,)).fetchone():
                self._drop(number)

    # --- blobs --------------------------------------------------------------------------------------------

    def bodies(self, number: int, blobs: Iterable[bytes]) -> dict[bytes, bytes]:
        """The bytes of those of ``blobs`` that belong to a content, hashed again. Raises ``Damaged``."""
        found: dict[bytes, bytes] = {}
        try:
            for blob in blobs:
                row = self._db.execute(
                    "SELECT blobs.number, length, data FROM blobs JOIN parts ON parts.blob = blobs.number AND parts.content = ?"
                    " LEFT JOIN bodies ON bodies.number = blobs.number WHERE blobs.id = ?",
                    (number, blob),
                ).fetchone()
                if row is None:
                    continue
                if row[2] is None or content_id(row[2]) != blob:
                    self._forget_blob(row[0], row[1])
                    raise Damaged(
                        "damaged-blob", f"a part of a content in {self.path} is no longer what was written; fetch it again"
                    )
                found[blob] = row[2]
        except sqlite3.Error as error:
            raise self._fault(error) from None
        return found

    def _forget_blob(self, number: int, length: int) -> None:
        with self.transaction():
            self._db.execute(
                "UPDATE contents SET complete = 0 WHERE number IN (SELECT content FROM parts WHERE blob = ?)", (number,)
            )
            self._db.execute("DELETE FROM parts WHERE blob = ?", (number,))
            self._remove_blobs([(number, length)])

    def root_and_pages(self, number: int) -> tuple[Root, tuple[bytes, ...]]:
        """The decoded root of a content and its pages in order. Raises ``Damaged``, ``NoSuchContent``."""
        content = self._db.execute("SELECT id FROM contents WHERE number = ?", (number,)).fetchone()
        raw = self.root(number)
        try:
            root = open_root(content[0], raw)
        except Misbehaved:
            self.drop(number)
            raise Damaged("damaged-root", f"a content in {self.path} is no longer what was written; fetch it again") from None
        if not root.paged:
            return root, ()
        pages = self.bodies(number, {entry.id for entry in root.entries})
        if any(entry.id not in pages for entry in root.entries):
            raise Damaged("damaged-content", f"a content in {self.path} is no longer whole; fetch it again")
        return root, tuple(pages[entry.id] for entry in root.entries)

    # --- pins ---------------------------------------------------------------------------------------------

    def pin(self, content: bytes, owner: str) -> None:
        """Keep ``content``, which may still be to come, until ``owner`` lets go."""
        with self.transaction(durable=True):
            self._db.execute("INSERT OR IGNORE INTO pins VALUES (?, ?)", (owner, content))

    def unpin(self, owner: str) -> None:
        """Let go of everything that ``owner`` pinned."""
        with self.transaction():
            self._db.execute("DELETE FROM pins WHERE owner = ?", (owner,))

    def owners(self) -> list[str]:
        """Whoever has pinned something, in order."""
        return [row[0] for row in self._db.execute("SELECT DISTINCT owner FROM pins ORDER BY owner")]
