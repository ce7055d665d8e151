"""The content store: put, read, stream, pin. Work that blocks is done in a thread, one piece at a time, a block of about
``STORE_BLOCK_BYTES`` each, so long contents take turns and memory does not grow with them.

What is not pinned and not in use at the moment is a cache: it is freed, least recently used first, when room is needed.
"""

import contextlib
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import trio

from cafs.core.assembly import Assembler
from cafs.core.faults import Corrupt, Damaged, TooLarge
from cafs.core.manifest import Content, Entry, Manifest, open_root, root_id, whole
from cafs.core.messages import Chunk
from cafs.core.squeeze import Squeezer
from cafs.shell.shelf import Shelf, Usage
from wire.errors import LocalFault
from wire.limits import CONTENT_MAX_BYTES, STORE_BLOCK_BYTES, STORE_QUOTA_BYTES

T = TypeVar("T")


class Store:
    """Content on disk, in the folder ``path``. Opened by its constructor, which raises ``LocalFault`` in words for the owner."""

    def __init__(self, path: Path, quota_bytes: int = STORE_QUOTA_BYTES) -> None:
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise LocalFault("store-unwritable", f"the folder {path} for content cannot be made: {error.strerror}") from None
        self._shelf = Shelf(path / "content.sqlite", quota_bytes)
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Let the files go. Nothing may use the store after this."""
        if not self._closed:
            self._closed = True
            with trio.CancelScope(shield=True):
                await self._run(self._shelf.close)

    async def _run(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._one_at_a_time)

    # --- whole contents -----------------------------------------------------------------------------------

    async def put(self, data: bytes | AsyncIterator[bytes]) -> Content:
        """Store a content and say what it is. Raises ``TooLarge``, ``StoreFull``, ``LocalFault``; then nothing of it stays."""
        number = await self._run(self._shelf.begin)
        try:
            assembler = Assembler()
            async with contextlib.aclosing(_blocks(data)) as blocks:
                async for block in blocks:
                    await self._run(partial(self._add, number, assembler, block))
            return await self._run(lambda: self._seal(number, assembler))
        except BaseException:
            # Whether sealed or not, the number is dropped only while it has no id.
            with trio.CancelScope(shield=True), contextlib.suppress(LocalFault):
                await self._run(lambda: self._shelf.drop_unsealed(number))
            raise
        finally:
            self._shelf.release(number)

    def _add(self, number: int, assembler: Assembler, block: bytes) -> None:
        self._shelf.add(number, assembler.feed(block))

    def _seal(self, number: int, assembler: Assembler) -> Content:
        done = assembler.finish()
        self._shelf.seal(number, done.blobs, done.manifest, done.digest)
        return Content(id=done.manifest.id, size=done.manifest.size, digest=done.digest)

    async def read(self, content: bytes, most_bytes: int = CONTENT_MAX_BYTES) -> bytes:
        """All bytes of a content. Raises ``NoSuchContent``, ``Damaged``, or ``TooLarge`` for more than ``most_bytes``."""
        about = await self.find(content)
        if about is not None and about.size > most_bytes:
            raise TooLarge("content-too-large", f"the content has {about.size} bytes, and {most_bytes} were expected at most")
        return b"".join([block async for block in self.stream(content)])

    def stream(self, content: bytes) -> AsyncIterator[bytes]:
        """The bytes of a content in blocks; it stays here while the iterator lives. Raises as ``read``, at the first step."""
        return _Stream(self, content)

    async def has(self, content: bytes) -> bool:
        """Whether all of a content is here."""
        return await self.find(content) is not None

    async def find(self, content: bytes) -> Content | None:
        """Id, size and digest of a content, if all of it is here."""

        def look() -> Content | None:
            number = self._shelf.find(content)
            return None if number is None else self._shelf.describe(number)

        return await self._run(look)

    async def manifest(self, content: bytes) -> Manifest:
        """The manifest of a content. Raises ``NoSuchContent``, ``Damaged``."""
        async with self.using(content) as outlet:
            return await self._run(outlet.manifest)

    # --- keeping ------------------------------------------------------------------------------------------

    async def pin(self, content: bytes, owner: str) -> None:
        """Keep ``content``, which may still be on its way, until ``owner`` lets go. Survives restarts."""
        await self._run(lambda: self._shelf.pin(content, owner))

    async def unpin(self, owner: str) -> None:
        """Let go of everything that ``owner`` pinned; unknown owners are fine."""
        await self._run(lambda: self._shelf.unpin(owner))

    async def owners(self) -> list[str]:
        """Whoever has pinned something, so that a restarted node can let go for those who are no more."""
        return await self._run(self._shelf.owners)

    async def usage(self) -> Usage:
        """How full the store is."""
        return await self._run(self._shelf.usage)

    # --- for transfers ------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def using(self, content: bytes) -> AsyncIterator["Outlet"]:
        """A content to be sent; it stays here meanwhile. Raises ``NoSuchContent``, ``Damaged``."""
        number = await self._run(lambda: self._shelf.enter(content))
        try:
            yield await self._run(lambda: Outlet(self, self._shelf, number, content))
        finally:
            self._shelf.release(number)

    @contextlib.asynccontextmanager
    async def receiving(self, content: bytes, root: bytes) -> AsyncIterator["Inlet"]:
        """A content on its way in, with the root that its id names. What was here of it already is there to be claimed."""
        size = open_root(content, root).size
        number = await self._run(lambda: self._shelf.expect(content, root, size))
        try:
            yield Inlet(self, self._shelf, number, content)
        finally:
            self._shelf.release(number)


class Outlet:
    """A complete content while it is being sent."""

    def __init__(self, store: Store, shelf: Shelf, number: int, content: bytes) -> None:
        self._store = store
        self._shelf = shelf
        self._number = number
        self._squeezer = Squeezer()
        self.content = content
        self.root = shelf.root(number)
        if root_id(self.root) != content:
            shelf.drop(number)
            raise Damaged("damaged-root", f"a content in {shelf.path} is no longer what was written; fetch it again")

    async def chunks(self, blobs: Sequence[bytes]) -> tuple[Chunk, ...]:
        """Those of ``blobs`` that are part of the content, compressed where that helps. Raises ``Damaged``."""
        return await self._store._run(lambda: self._squeezed(blobs))

    def _squeezed(self, blobs: Sequence[bytes]) -> tuple[Chunk, ...]:
        chunks = []
        for blob, data in self._shelf.bodies(self._number, blobs).items():
            codec, body = self._squeezer.squeeze(data)
            chunks.append(Chunk(blob=blob, codec=codec, body=body))
        return tuple(chunks)

    def manifest(self) -> Manifest:
        """The whole manifest; blocks."""
        root, pages = self._shelf.root_and_pages(self._number)
        return Manifest(id=self.content, root=self.root, size=root.size, pages=pages)


class Inlet:
    """A content while it is being fetched."""

    def __init__(self, store: Store, shelf: Shelf, number: int, content: bytes) -> None:
        self._store = store
        self._shelf = shelf
        self._number = number
        self._content = content

    async def claim(self, blobs: Iterable[bytes], *, bodies: bool) -> tuple[frozenset[bytes], dict[bytes, bytes]]:
        """Which of ``blobs`` are here already, and, when ``bodies``, their bytes. They stay for this content."""

        def work() -> tuple[frozenset[bytes], dict[bytes, bytes]]:
            held = self._shelf.claim(self._number, blobs)
            return frozenset(held), self._shelf.bodies(self._number, held) if bodies else {}

        return await self._store._run(work)

    async def keep(self, blobs: Iterable[tuple[bytes, bytes]]) -> None:
        """Store verified blobs. Raises ``StoreFull``, ``LocalFault``."""
        await self._store._run(lambda: self._shelf.add(self._number, blobs))

    async def verify(self) -> Content:
        """Assemble the content anew from what is here and mark it complete. Raises ``Corrupt`` when that gives another id."""
        assembler = Assembler()
        runs = await self._store._run(lambda: _runs(self._shelf, self._number))
        while runs:
            run = runs.pop()
            await self._store._run(partial(self._assemble, assembler, run))
        return await self._store._run(lambda: self._complete(assembler))

    def _assemble(self, assembler: Assembler, run: Sequence[Entry]) -> None:
        assembler.feed(_bytes_of(self._shelf, self._number, run))

    def _complete(self, assembler: Assembler) -> Content:
        done = assembler.finish()
        if done.manifest.id != self._content:
            self._shelf.drop(self._number)
            raise Corrupt("not-canonical", "the bytes arrived as listed, but the list is not the one manifest of these bytes", 50)
        self._shelf.complete(self._number, done.digest)
        return Content(id=self._content, size=done.manifest.size, digest=done.digest)


class _Stream:
    """An iterator over the bytes of a content that holds the content while it is in use."""

    def __init__(self, store: Store, content: bytes) -> None:
        self._store = store
        self._content = content
        self._number = 0
        self._runs: list[tuple[Entry, ...]] | None = None
        self._release: Callable[[], object] = lambda: None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        shelf = self._store._shelf
        try:
            if self._runs is None:
                self._number = await self._store._run(lambda: shelf.enter(self._content))
                self._release = weakref.finalize(self, shelf.release, self._number)
                self._runs = await self._store._run(lambda: _runs(shelf, self._number))
            if not self._runs:
                raise StopAsyncIteration
            run = self._runs.pop()
            return await self._store._run(lambda: _bytes_of(shelf, self._number, run))
        except BaseException:
            self._release()
            raise


def _runs(shelf: Shelf, number: int) -> list[tuple[Entry, ...]]:
    """The chunks of a content, last first, in runs of about a block each; blocks."""
    runs: list[tuple[Entry, ...]] = []
    run: list[Entry] = []
    size = 0
    for chunk in whole(*shelf.root_and_pages(number)):
        run.append(chunk)
        size += chunk.size
        if size >= STORE_BLOCK_BYTES:
            runs.append(tuple(run))
            run, size = [], 0
    if run:
        runs.append(tuple(run))
    return runs[::-1]


def _bytes_of(shelf: Shelf, number: int, run: Sequence[Entry]) -> bytes:
    """The bytes that a run of chunks stands for; blocks. Raises ``Damaged``."""
    bodies = shelf.bodies(number, {chunk.id for chunk in run})
    try:
        return b"".join(bodies[chunk.id] for chunk in run)
    except KeyError:
        raise Damaged("damaged-content", f"a content in {shelf.path} is no longer whole; fetch it again") from None


async def _blocks(data: bytes | AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """``data`` in blocks of ``STORE_BLOCK_BYTES``, the last one shorter."""
    if isinstance(data, bytes):
        for start in range(0, len(data), STORE_BLOCK_BYTES):
            yield data[start : start + STORE_BLOCK_BYTES]
        return
    gathered = bytearray()
    async for piece in data:
        gathered += piece
        while len(gathered) >= STORE_BLOCK_BYTES:
            yield bytes(gathered[:STORE_BLOCK_BYTES])
            del gathered[:STORE_BLOCK_BYTES]
    if gathered:
        yield bytes(gathered)
