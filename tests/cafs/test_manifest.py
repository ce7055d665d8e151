"""Chunks, manifests and compression: bounds, canonicity, golden values, and input that wishes us ill."""

import contextlib
import random
from itertools import pairwise

import pyfastcdc
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from cafs.core.assembly import Assembler
from cafs.core.chunker import Cutter, chunks_of
from cafs.core.faults import Corrupt, TooLarge
from cafs.core.manifest import Entry, Page, Root, build, entry_of, open_page, open_root, paginate, root_id, whole
from cafs.core.squeeze import Codec, Squeezer, expand
from wire.canon import pack
from wire.digest import content_id
from wire.errors import LocalFault, Misbehaved
from wire.limits import (
    CHUNK_MAX_BYTES,
    CHUNK_MIN_BYTES,
    CONTENT_MAX_BYTES,
    MANIFEST_MAX_CHUNKS,
    MANIFEST_PAGE_MAX,
    MANIFEST_PAGE_MAX_BYTES,
    MANIFEST_PAGE_MIN,
)


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


# Noise, zeros and repeats of all sizes, from a seed, so that examples are megabytes and still shrink.
contents = st.builds(
    lambda parts: b"".join(noise(seed, size) if kind else bytes([seed % 256]) * size for kind, seed, size in parts),
    st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 16), st.integers(0, 400_000)), max_size=4),
)


@given(contents)
@settings(max_examples=60, deadline=None)
def test_chunks_are_the_content_and_within_bounds(data: bytes) -> None:
    chunks = chunks_of(data)
    assert b"".join(chunks) == data
    assert all(CHUNK_MIN_BYTES <= len(chunk) <= CHUNK_MAX_BYTES for chunk in chunks[:-1])
    assert all(1 <= len(chunk) <= CHUNK_MAX_BYTES for chunk in chunks)


@given(contents, st.lists(st.integers(0, 500_000), max_size=12))
@settings(max_examples=60, deadline=None)
def test_blocks_leave_no_trace(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    cutter = Cutter()
    chunks = [chunk for start, end in pairwise(edges) for chunk in cutter.feed(data[start:end])]
    assert chunks + cutter.finish() == chunks_of(data)


def test_golden_cuts_and_ids() -> None:
    """A change of parameters, library or encoding changes every id there is: it must not go unnoticed."""
    data = bytes(content_id(bytes([number % 251]))[number % 32] for number in range(20_000)) + noise(1, 100_000)
    assert [len(chunk) for chunk in chunks_of(data)] == GOLDEN_LENGTHS
    manifest = build([entry_of(chunk) for chunk in chunks_of(data)])
    assert manifest.id.hex() == GOLDEN_ID
    assert build([]).id.hex() == GOLDEN_EMPTY


GOLDEN_LENGTHS = [18615, 20525, 14118, 17810, 18606, 21257, 9069]
GOLDEN_ID = "38ce3a2e9ba070dd18699cdaa9dd0d69e89a1a555e754bd905b774c7e768d8c8"
GOLDEN_EMPTY = "cd7e134101307b4104902afcc265b35614d84c6ad0636204148b39c135257c2d"


def test_without_the_compiled_chunker_we_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        __module__ = "pyfastcdc.py.fastcdc"

    monkeypatch.setattr(pyfastcdc, "FastCDC", Slow)
    with pytest.raises(LocalFault, match="compiled"):
        Cutter()


def test_an_insertion_changes_few_chunks_and_few_pages() -> None:
    data = noise(2, 40_000_000)
    edited = data[:1_000] + b"!" + data[1_000:]
    before = build([entry_of(chunk) for chunk in chunks_of(data)])
    after = build([entry_of(chunk) for chunk in chunks_of(edited)])
    assert len(before.pages) > 5
    assert len(set(after.pages) - set(before.pages)) == 1


def entries(count: int, seed: int = 0) -> list[Entry]:
    rolled = random.Random(seed)
    sizes = [rolled.randint(CHUNK_MIN_BYTES, 20_000) for _ in range(count)]
    return [Entry(id=rolled.randbytes(32), size=size) for size in sizes]


@given(st.integers(0, 3_000), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_a_manifest_opens_to_what_it_was_built_from(count: int, seed: int) -> None:
    chunks = entries(count, seed)
    manifest = build(chunks)
    root = open_root(manifest.id, manifest.root)
    assert list(whole(root, manifest.pages)) == chunks
    assert root.paged == (count > MANIFEST_PAGE_MAX)
    assert all(MANIFEST_PAGE_MIN <= len(run) <= MANIFEST_PAGE_MAX for run in paginate(chunks)[:-1])
    assert all(len(page) <= MANIFEST_PAGE_MAX_BYTES for page in manifest.pages)


def test_the_largest_manifest_fits_its_frames() -> None:
    widest = [Entry(id=number.to_bytes(32, "big"), size=8_192) for number in range(0, MANIFEST_MAX_CHUNKS << 8, 256)]
    manifest = build(widest)  # every id ends in zero, so pages are as many as can be
    assert sum(entry.size for entry in widest) == CONTENT_MAX_BYTES
    assert len(manifest.pages) == MANIFEST_MAX_CHUNKS // MANIFEST_PAGE_MIN
    assert len(whole(open_root(manifest.id, manifest.root), manifest.pages)) == MANIFEST_MAX_CHUNKS
    with pytest.raises(TooLarge) as caught:
        build([*widest, entry_of(b"x")])
    assert caught.value.code == "content-too-large"
    with pytest.raises(TooLarge) as caught:
        build([Entry(id=bytes(32), size=4_096)] * (MANIFEST_MAX_CHUNKS + 1))
    assert caught.value.code == "too-many-chunks"


def test_content_over_the_limit_is_refused_while_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cafs.core.assembly.CONTENT_MAX_BYTES", 1_000_000)
    assembler = Assembler()
    assembler.feed(bytes(1_000_000))
    with pytest.raises(TooLarge):
        assembler.feed(b"x")
    monkeypatch.setattr("cafs.core.assembly.MANIFEST_MAX_CHUNKS", 10)
    with pytest.raises(TooLarge):
        Assembler().feed(noise(3, 900_000))


def root_with(*sizes: int, total: int | None = None, paged: bool = False, same: bool = False) -> Root:
    listed = tuple(Entry(id=bytes(32) if same else bytes([number]) * 32, size=size) for number, size in enumerate(sizes))
    return Root(size=sum(sizes) if total is None else total, paged=paged, entries=listed)


BAD_ROOTS = {
    "sum": root_with(5_000, 5_000, total=9_999),
    "long chunk": root_with(CHUNK_MAX_BYTES + 1),
    "short chunk in the middle": root_with(5_000, 100, 5_000),
    "two sizes": root_with(5_000, 6_000, same=True),
    "not in pages": root_with(*[5_000] * (MANIFEST_PAGE_MAX + 1), same=True),
}


@pytest.mark.parametrize("name", sorted(BAD_ROOTS))
def test_ill_formed_roots_are_corrupt(name: str) -> None:
    raw = pack(BAD_ROOTS[name])
    with pytest.raises(Corrupt):
        whole(open_root(root_id(raw), raw), ())


@given(st.binary(max_size=300))
def test_no_bytes_crash_a_reader_of_roots_or_pages(raw: bytes) -> None:
    with pytest.raises(Misbehaved):
        open_root(root_id(raw), raw)
    with pytest.raises(Misbehaved):
        open_page(entry_of(raw, 1), raw)


@given(st.data())
def test_a_changed_bit_is_found(data: st.DataObject) -> None:
    manifest = build(entries(700))
    for raw, check in (
        (manifest.root, lambda bad: open_root(manifest.id, bad)),
        (manifest.pages[0], lambda bad: open_page(open_root(manifest.id, manifest.root).entries[0], bad)),
    ):
        bit = data.draw(st.integers(0, 8 * len(raw) - 1))
        bad = bytearray(raw)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            check(bytes(bad))


def test_pages_must_add_up() -> None:
    page = pack(Page(chunks=tuple(entries(3))))
    with pytest.raises(Corrupt):
        open_page(entry_of(page, 7), page)


@given(contents)
@settings(max_examples=40, deadline=None)
def test_squeezing_is_reversible_and_never_grows(data: bytes) -> None:
    data = data[:CHUNK_MAX_BYTES]
    codec, body = Squeezer().squeeze(data)
    assert len(body) <= len(data)
    assert expand(codec, body, len(data)) == data


def test_bombs_are_not_expanded() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(200 << 20))
    for body in (
        bomb,
        zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1_000)),
        zstandard.ZstdCompressor().compress(b"x" * 1_000) + b"more",
        zstandard.ZstdCompressor().compress(b"x" * 1_000)[:-1],
        b"",
        b"no frame at all",
    ):
        with pytest.raises(Corrupt):
            expand(Codec.ZSTD, body, 1_000)
    with pytest.raises(Corrupt):
        expand(Codec.PLAIN, bytes(1_001), 1_000)


@given(st.binary(max_size=2_000))
def test_no_bytes_crash_the_expander(body: bytes) -> None:
    with contextlib.suppress(Corrupt):
        assert len(expand(Codec.ZSTD, body, 100)) <= 100
