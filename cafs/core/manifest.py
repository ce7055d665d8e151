"""What a content is made of, so that every piece can be verified as it arrives.

A content is cut into chunks (``cafs.core.chunker``). Its *root* lists them, or, above ``MANIFEST_PAGE_MAX`` chunks, lists
*pages* that list them. A chunk and a page are both *blobs*: bytes named by ``content_id(bytes)``, stored and sent alike. The id
of a content is the digest of its root's canonical bytes under a context of its own.

Pages end where the data says so, as chunks do: behind the first entry, from the ``MANIFEST_PAGE_MIN``-th on, whose chunk id
ends in a zero byte, and at the latest behind the ``MANIFEST_PAGE_MAX``-th. An insertion near the front of a large content
leaves the later pages alone. Since cutting and paging are functions of the bytes, a content has one root and one id, and
whoever fetched it whole checks that too, by building the manifest anew.

The digest of the whole is not in the root: it would be one more claim to verify. Whoever holds the content computes it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from cafs.core.faults import Corrupt, TooLarge
from wire.canon import EncodingError, Hash32, Range, Size, pack, record, unpack
from wire.digest import content_id, context, digest
from wire.limits import (
    CHUNK_MAX_BYTES,
    CHUNK_MIN_BYTES,
    CONTENT_MAX_BYTES,
    MANIFEST_MAX_CHUNKS,
    MANIFEST_PAGE_MAX,
    MANIFEST_PAGE_MAX_BYTES,
    MANIFEST_PAGE_MIN,
)

ROOT_ENTRIES_MAX: Final = MANIFEST_MAX_CHUNKS // MANIFEST_PAGE_MIN
ROOT_MAX_BYTES: Final = 48 * ROOT_ENTRIES_MAX
_ROOT_CONTEXT: Final = context("", "manifest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """One content: its id, its length in bytes and the BLAKE3 content digest of all its bytes."""

    id: bytes
    size: int
    digest: bytes


@record
class Entry:
    """A blob in a list: its id, and how many bytes of the content it stands for."""

    id: Hash32
    size: Annotated[int, Range(1, CONTENT_MAX_BYTES)]


@record
class Page:
    """A run of consecutive chunks."""

    chunks: Annotated[tuple[Entry, ...], Size(1, MANIFEST_PAGE_MAX)]


@record
class Root:
    """The top of a manifest: entries are chunks, or pages when ``paged``. An empty content has no entries."""

    size: Annotated[int, Range(0, CONTENT_MAX_BYTES)]
    paged: bool
    entries: Annotated[tuple[Entry, ...], Size(0, ROOT_ENTRIES_MAX)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A whole manifest as its maker sees it. ``pages`` are the encoded pages in order, empty when the root lists chunks."""

    id: bytes
    root: bytes
    size: int
    pages: tuple[bytes, ...]


def entry_of(blob: bytes, size: int | None = None) -> Entry:
    """The entry that names ``blob``; a page's ``size`` is that of the content it covers."""
    return Entry(id=content_id(blob), size=len(blob) if size is None else size)


def root_id(root: bytes) -> bytes:
    """32 bytes: the id of the content whose root has these canonical bytes."""
    return digest(_ROOT_CONTEXT, root)


def paginate(chunks: Sequence[Entry]) -> list[tuple[Entry, ...]]:
    """The runs of entries that make pages."""
    runs: list[tuple[Entry, ...]] = []
    start = 0
    for position, entry in enumerate(chunks, 1):
        length = position - start
        if length >= MANIFEST_PAGE_MAX or (length >= MANIFEST_PAGE_MIN and entry.id[-1] == 0):
            runs.append(tuple(chunks[start:position]))
            start = position
    if start < len(chunks):
        runs.append(tuple(chunks[start:]))
    return runs


def build(chunks: Sequence[Entry]) -> Manifest:
    """The manifest of a content made of ``chunks``. Raises ``TooLarge``."""
    size = sum(entry.size for entry in chunks)
    if size > CONTENT_MAX_BYTES:
        raise TooLarge("content-too-large", f"a content has at most {CONTENT_MAX_BYTES >> 20} MiB")
    if len(chunks) > MANIFEST_MAX_CHUNKS:
        raise TooLarge("too-many-chunks", f"this content falls into more than {MANIFEST_MAX_CHUNKS} chunks")
    if len(chunks) <= MANIFEST_PAGE_MAX:
        root = pack(Root(size=size, paged=False, entries=tuple(chunks)))
        return Manifest(id=root_id(root), root=root, size=size, pages=())
    runs = paginate(chunks)
    pages = tuple(pack(Page(chunks=run)) for run in runs)
    entries = tuple(entry_of(page, sum(entry.size for entry in run)) for page, run in zip(pages, runs, strict=True))
    root = pack(Root(size=size, paged=True, entries=entries))
    return Manifest(id=root_id(root), root=root, size=size, pages=pages)


def open_root(content: bytes, raw: bytes) -> Root:
    """The root that ``content`` names, decoded and checked. Raises ``Corrupt``."""
    if len(raw) > ROOT_MAX_BYTES:
        raise Corrupt("oversize-manifest", f"a manifest root of {len(raw)} bytes is longer than any content needs", 50)
    if root_id(raw) != content:
        raise Corrupt("wrong-manifest", "this manifest is not the one that the content id names", 50)
    try:
        root = unpack(Root, raw)
    except EncodingError as error:
        raise Corrupt("bad-manifest", f"the manifest cannot be read: {error.sentence}") from None
    if sum(entry.size for entry in root.entries) != root.size:
        raise Corrupt("bad-manifest", "the parts of the manifest do not add up to its size")
    if not root.paged and len(root.entries) > MANIFEST_PAGE_MAX:
        raise Corrupt("bad-manifest", "a list this long has to be in pages")
    return root


def open_page(entry: Entry, raw: bytes) -> tuple[Entry, ...]:
    """The chunks that the page ``raw`` lists, which is the one named by ``entry``. Raises ``Corrupt``."""
    if len(raw) > MANIFEST_PAGE_MAX_BYTES or content_id(raw) != entry.id:
        raise Corrupt("wrong-page", "this page is not the one that the manifest names", 50)
    try:
        page = unpack(Page, raw)
    except EncodingError as error:
        raise Corrupt("bad-manifest", f"a page of the manifest cannot be read: {error.sentence}") from None
    if sum(chunk.size for chunk in page.chunks) != entry.size:
        raise Corrupt("bad-manifest", "the chunks of a page do not add up to its size")
    return page.chunks


def whole(root: Root, pages: Iterable[bytes]) -> tuple[Entry, ...]:
    """All chunks of a content in order, given its pages in order. Raises ``Corrupt``.

    What is checked here bounds what a transfer can cost. That cuts and pages are where they belong is known only when all
    bytes are there: then ``build`` over the chunks cut anew must give the same id.
    """
    chunks: list[Entry] = []
    if root.paged:
        for entry, raw in zip(root.entries, pages, strict=True):
            chunks.extend(open_page(entry, raw))
    else:
        chunks.extend(root.entries)
    if len(chunks) > MANIFEST_MAX_CHUNKS:
        raise Corrupt("bad-manifest", f"the manifest lists more than {MANIFEST_MAX_CHUNKS} chunks")
    sizes: dict[bytes, int] = {}
    for chunk in chunks:
        if chunk.size > CHUNK_MAX_BYTES:
            raise Corrupt("bad-manifest", f"a chunk of {chunk.size} bytes is too long")
        if sizes.setdefault(chunk.id, chunk.size) != chunk.size:
            raise Corrupt("bad-manifest", "one chunk cannot have two sizes")
    if any(chunk.size < CHUNK_MIN_BYTES for chunk in chunks[:-1]):
        raise Corrupt("bad-manifest", "only the last chunk may be short")
    return tuple(chunks)
