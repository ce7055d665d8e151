"""The specification says what the code does: messages, bounds, codes and vectors."""

import dataclasses
from pathlib import Path

import pytest

from cafs.core import faults
from cafs.core.chunker import chunks_of
from cafs.core.manifest import ROOT_ENTRIES_MAX, ROOT_MAX_BYTES, build, entry_of
from cafs.core.messages import MESSAGES, PROTOCOL
from cafs.shell.line import FRAME_MOST_BYTES
from wire import limits
from wire.digest import CONTENT, context

SPEC = (Path(__file__).parents[2] / "docs" / "spec" / "content.md").read_text(encoding="utf-8")


def test_every_message_is_described_with_its_tag_and_fields() -> None:
    for tag, kind in MESSAGES.members.items():
        row = next(line for line in SPEC.splitlines() if line.startswith(f"| {tag} | `{kind.__name__}` |"))
        assert all(f"{field.name}: " in row for field in dataclasses.fields(kind))


@pytest.mark.parametrize(
    "number",
    [
        limits.CHUNK_MIN_BYTES,
        limits.CHUNK_AVERAGE_BYTES,
        limits.CHUNK_MAX_BYTES,
        limits.CONTENT_MAX_BYTES,
        limits.MANIFEST_MAX_CHUNKS,
        limits.MANIFEST_PAGE_MAX,
        limits.MANIFEST_PAGE_MAX_BYTES,
        limits.TRANSFER_WINDOW_BYTES,
        ROOT_ENTRIES_MAX,
        ROOT_MAX_BYTES,
        FRAME_MOST_BYTES,
        limits.MANIFEST_MAX_CHUNKS + ROOT_ENTRIES_MAX,
    ],
)
def test_bounds_are_written_as_they_are(number: int) -> None:
    assert f"{number:,}" in SPEC


def test_small_bounds_and_names_are_written_as_they_are() -> None:
    for text in (
        PROTOCOL,
        CONTENT,
        context("", "manifest"),
        f"level {limits.CHUNK_NORMALISATION}",
        f"1 to {limits.WISH_LIST_MAX} blob ids",
        f"more than {limits.TRANSFER_WINDOW_CHUNKS} blobs wished for",
        f"for {limits.TRANSFER_STALL_S} s ends",
        f"tries {limits.FETCH_ATTEMPTS_MAX} times",
        f"at most {limits.TRANSFERS_MAX} transfers each way and {limits.TRANSFERS_PER_PEER_MAX} with one peer",
        f"the {limits.MANIFEST_PAGE_MIN}nd or a later one",
        f"at most {4 * limits.REASON_MAX_CHARS} bytes of text",
        f"`{faults.NOT_GRANTED}`",
        f"`{faults.NO_SUCH_CONTENT}`",
        f"`{faults.BUSY}`",
    ):
        assert text in SPEC


@pytest.mark.parametrize("data", [b"", b"a"])
def test_vectors(data: bytes) -> None:
    manifest = build([entry_of(chunk) for chunk in chunks_of(data)])
    assert f"| `{manifest.root.hex()}` | `{manifest.id.hex()}` |" in SPEC


def test_every_reason_for_blame_is_named() -> None:
    core = Path(faults.__file__).parent
    shell = core.parent / "shell"
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((*core.glob("*.py"), *shell.glob("*.py"))))
    codes = {part.split('"')[1] for name in ("Corrupt(", "Overrun(") for part in text.split(name)[1:] if part.startswith('"')}
    codes |= {part.split('"')[1] for name in ("Corrupt(\n", "Overrun(\n") for part in text.split(name)[1:]}
    assert len(codes) > 10
    assert all(f"`{code}`" in SPEC or code == "out-of-turn" for code in codes)
