"""Every other way to write a message down: the same values in longer forms, other types, more or fewer fields, wrong bounds."""

import dataclasses
import enum
import struct
import types
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import msgpack

from wire.canon import Range, Size


def otherwise(value: Any) -> Iterator[bytes]:
    """All msgpack encodings of one plain value that are not its canonical one, or that are of a value of a like type."""
    short = msgpack.packb(value, use_bin_type=True)
    if isinstance(value, bool) or value is None:
        yield b"\xc0" if value is not None else b"\xc2"
    elif isinstance(value, int):
        for head, form, most in ((0xCC, ">B", 8), (0xCD, ">H", 16), (0xCE, ">I", 32), (0xCF, ">Q", 64)):
            if value < 1 << most:
                yield bytes([head]) + struct.pack(form, value)
        for head, form, most in ((0xD0, ">b", 7), (0xD1, ">h", 15), (0xD2, ">i", 31), (0xD3, ">q", 63)):
            if value < 1 << most:
                yield bytes([head]) + struct.pack(form, value)
        yield b"\xcb" + struct.pack(">d", value)
        yield msgpack.packb(str(value))
        yield b"\xd6\xff" + struct.pack(">I", value & 0xFFFFFFFF)  # a timestamp
    elif isinstance(value, bytes | str):
        raw = value.encode() if isinstance(value, str) else value
        for head in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB):
            form = {0: ">B", 1: ">H", 2: ">I"}[(head - 0xC4) % 21]
            if len(raw) < 1 << 8 * struct.calcsize(form):
                yield bytes([head]) + struct.pack(form, len(raw)) + raw
        if len(raw) < 32:
            yield bytes([0xA0 | len(raw)]) + raw
        yield b"\xc7" + bytes([len(raw) & 255, 1]) + raw[:255]
        yield msgpack.packb(list(raw)[:4])
    elif isinstance(value, list):
        items = b"".join(msgpack.packb(one, use_bin_type=True) for one in value)
        yield b"\xdc" + struct.pack(">H", len(value)) + items
        yield b"\xdd" + struct.pack(">I", len(value)) + items
        yield bytes([0x80 | (len(value) & 15)]) + b"".join(
            msgpack.packb(number) + msgpack.packb(one, use_bin_type=True) for number, one in enumerate(value[:15])
        )
        yield msgpack.packb([*value, 0], use_bin_type=True)
        yield msgpack.packb([*value, None], use_bin_type=True)
        if value:
            yield msgpack.packb(value[:-1], use_bin_type=True)
            yield msgpack.packb(value[1:], use_bin_type=True)
            yield msgpack.packb(value[::-1], use_bin_type=True) if value != value[::-1] else b"\x90"
    assert isinstance(short, bytes)


def variants(tree: Any) -> Iterator[bytes]:
    """The bytes of ``tree`` with one of its nodes, at any depth, written otherwise; none equals the canonical bytes."""
    canonical = msgpack.packb(tree, use_bin_type=True)
    for raw in _variants(tree):
        if raw != canonical:
            yield raw


def _variants(tree: Any) -> Iterator[bytes]:
    yield from otherwise(tree)
    if isinstance(tree, list):
        head = msgpack.packb([0] * len(tree))[: -len(tree)] if tree else b""
        packed = [msgpack.packb(one, use_bin_type=True) for one in tree]
        for place, one in enumerate(tree):
            for raw in _variants(one):
                yield head + b"".join([*packed[:place], raw, *packed[place + 1 :]])


def ill_fitting(kind: type) -> Iterator[tuple[str, Callable[[list[Any]], list[Any]]]]:
    """For every field of a record: its name, and what puts a value outside its bounds, or of a wrong type, into the array."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for place, field in enumerate(dataclasses.fields(kind)):
        for value in bad_values(hints[field.name]):

            def change(fields: list[Any], place: int = place, value: Any = value) -> list[Any]:
                return [*fields[:place], value, *fields[place + 1 :]]

            yield f"{field.name}={value!r:.40}", change


def bad_values(hint: Any) -> Iterator[Any]:
    """Values that a field with this annotation must not have."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    yield {}
    yield 1.5
    if origin is Annotated:
        kind = arguments[0]
        for bound in arguments[1:]:
            if isinstance(bound, Range):
                yield from (bound.least - 1, bound.most + 1, (1 << 64) - 1, -(1 << 63), None, True, "1", b"1", [1])
            elif isinstance(bound, Size) and kind in (bytes, str):
                filling = b"x" if kind is bytes else "x"
                yield from (filling * (bound.most + 1), 0, None, [], "x" * bound.least if kind is bytes else b"x" * bound.least)
                if bound.least:
                    yield filling * (bound.least - 1)
            elif isinstance(bound, Size):
                yield from ([b"x" * 20] * (bound.most + 1), b"x", None, 0)
                yield from ([one] for one in bad_values(typing.get_args(kind)[0]))
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        yield from (-1, len(hint), None, "BUY", b"", [0])
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield from (None, [], 0, b"")
    elif origin is not types.UnionType and hint is int:
        yield from (-1, None, "1", b"1", [])
