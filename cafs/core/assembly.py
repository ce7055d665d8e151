"""From a stream of bytes to chunks, manifest and digest, in one pass. Putting and verifying are the same thing."""

from dataclasses import dataclass

from blake3 import blake3

from cafs.core.chunker import Cutter
from cafs.core.faults import TooLarge
from cafs.core.manifest import Entry, Manifest, build, entry_of
from wire.digest import CONTENT
from wire.limits import CONTENT_MAX_BYTES, MANIFEST_MAX_CHUNKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """The end of an assembly: the last blobs, the manifest of everything, and the content digest of all bytes."""

    blobs: tuple[tuple[bytes, bytes], ...]
    manifest: Manifest
    digest: bytes


class Assembler:
    """Takes a content block by block. Blobs are pairs of id and bytes."""

    def __init__(self) -> None:
        self._cutter = Cutter()
        self._hasher = blake3(derive_key_context=CONTENT)
        self._entries: list[Entry] = []
        self._size = 0

    def feed(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """The chunks that ``block`` completes. Raises ``TooLarge``."""
        self._size += len(block)
        if self._size > CONTENT_MAX_BYTES:
            raise TooLarge("content-too-large", f"a content has at most {CONTENT_MAX_BYTES >> 20} MiB")
        self._hasher.update(block)
        return self._note(self._cutter.feed(block))

    def finish(self) -> Assembled:
        """Everything that remains. Raises ``TooLarge``."""
        blobs = self._note(self._cutter.finish())
        manifest = build(self._entries)
        blobs += [(entry_of(page).id, page) for page in manifest.pages]
        return Assembled(blobs=tuple(blobs), manifest=manifest, digest=self._hasher.digest())

    def _note(self, chunks: list[bytes]) -> list[tuple[bytes, bytes]]:
        entries = [entry_of(chunk) for chunk in chunks]
        self._entries += entries
        if len(self._entries) > MANIFEST_MAX_CHUNKS:
            raise TooLarge("too-many-chunks", f"this content falls into more than {MANIFEST_MAX_CHUNKS} chunks")
        return [(entry.id, chunk) for entry, chunk in zip(entries, chunks, strict=True)]
