"""One canonical encoding: msgpack, arrays only, shortest form, nothing left over.

A ``record`` is a frozen dataclass whose annotations are its schema. It travels as the array of its fields in the order
they are declared. ``unpack`` decodes, checks every type and bound, encodes what it decoded again and compares; so there is
exactly one accepted byte string for a value. The refusals are the subclasses of ``EncodingError``.

    Digest = Annotated[bytes, Size(32, 32)]

    @record
    class Point:
        x: Annotated[int, Range(0, 255)]
        name: Annotated[str, Size(1, 8)]

    unpack(Point, pack(Point(x=1, name="a")))
"""

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, dataclass_transform

import msgpack

from wire.errors import Misbehaved

T = TypeVar("T")
INT_MAX = (1 << 63) - 1


class EncodingError(Misbehaved):
    """The bytes are not the canonical encoding of what was expected."""


class Malformed(EncodingError):
    """The bytes are not msgpack at all."""


class WrongShape(EncodingError):
    """A field has the wrong type or the array the wrong length."""


class OutOfBounds(EncodingError):
    """A field is well formed but too long, too short, too large or too small."""


class NotCanonical(EncodingError):
    """The same value has a shorter or otherwise different canonical encoding."""


class Oversize(EncodingError):
    """The message is longer than its kind may be."""


@dataclasses.dataclass(frozen=True, slots=True)
class Size:
    """Bounds of a length: bytes of ``bytes``, UTF-8 bytes of ``str``, items of a tuple."""

    least: int
    most: int


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """Bounds of an integer, both inside."""

    least: int
    most: int


U8 = Annotated[int, Range(0, (1 << 8) - 1)]
U16 = Annotated[int, Range(0, (1 << 16) - 1)]
U32 = Annotated[int, Range(0, (1 << 32) - 1)]
U63 = Annotated[int, Range(0, INT_MAX)]
Hash32 = Annotated[bytes, Size(32, 32)]
Public33 = Annotated[bytes, Size(33, 33)]
Signature64 = Annotated[bytes, Size(64, 64)]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def record(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen, slotted, keyword-only dataclass that ``pack`` and ``unpack`` understand."""
    return dataclasses.dataclass(frozen=True, slots=True, kw_only=True)(cls)


@dataclasses.dataclass(frozen=True, slots=True)
class _Codec:
    """``encode`` to plain msgpack values, and ``decode`` from them, with all checks and the reason for a refusal.

    What ``decode`` lets pass, ``encode`` would turn into exactly the plain value it came from. Values that travel as they are
    have a ``test`` besides: an expression over ``{}`` that says the same as ``decode`` without a reason.
    """

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    test: str = ""


def _within(measured: str, bounds: Range | Size) -> str:
    """The test that what ``measured`` says is within ``bounds``."""
    least, most = bounds.least, bounds.most
    return f"{measured} == {least}" if least == most else f"{least} <= {measured} <= {most}"


def _int_codec(bounds: Range) -> _Codec:
    def check(value: Any) -> int:
        if type(value) is not int:
            raise WrongShape("wrong-shape", f"an integer was expected, not {type(value).__name__}")
        if not bounds.least <= value <= bounds.most:
            raise OutOfBounds("out-of-bounds", f"{value} is not within {bounds.least} and {bounds.most}")
        return value

    return _Codec(check, check, f"type({{0}}) is int and {_within('{0}', bounds)}")


def _sized_codec(kind: type, bounds: Size) -> _Codec:
    def check(value: Any) -> Any:
        given: type = type(value)
        if given is not kind:
            raise WrongShape("wrong-shape", f"{kind.__name__} was expected, not {given.__name__}")
        length = len(value.encode()) if kind is str else len(value)
        if not bounds.least <= length <= bounds.most:
            raise OutOfBounds("out-of-bounds", f"a length of {length} is not within {bounds.least} and {bounds.most}")
        return value

    length = "len({0}.encode())" if kind is str else "len({0})"
    return _Codec(check, check, f"type({{0}}) is {kind.__name__} and {_within(length, bounds)}")


def _tuple_codec(item: _Codec, bounds: Size) -> _Codec:
    encode_item, decode_item = item.encode, item.decode

    def checked(value: Any) -> Any:
        if type(value) not in (tuple, list):
            raise WrongShape("wrong-shape", f"an array was expected, not {type(value).__name__}")
        if not bounds.least <= len(value) <= bounds.most:
            raise OutOfBounds("out-of-bounds", f"{len(value)} items are not within {bounds.least} and {bounds.most}")
        return value

    def decode(value: Any) -> tuple[Any, ...]:
        return tuple([decode_item(one) for one in checked(value)])

    def encode(value: Any) -> list[Any]:
        return [encode_item(one) for one in checked(value)]

    if not item.test:
        return _Codec(encode, decode)
    # What travels as it is is tested in one go; only where something fails is looked at one by one, to find the reason.
    sound: Callable[[Any], list[Any]] = eval(f"lambda value: [one for one in value if {item.test.format('one')}]")  # noqa: S307
    return _Codec(
        lambda value: found if len(found := sound(checked(value))) == len(value) else encode(value),
        lambda value: tuple(found) if len(found := sound(checked(value))) == len(value) else decode(value),
    )


def _fixed_tuple_codec(items: list[_Codec]) -> _Codec:
    def checked(value: Any) -> Any:
        if type(value) not in (tuple, list) or len(value) != len(items):
            raise WrongShape("wrong-shape", f"an array of {len(items)} was expected")
        return value

    return _Codec(
        lambda value: [codec.encode(one) for codec, one in zip(items, checked(value), strict=True)],
        lambda value: tuple(codec.decode(one) for codec, one in zip(items, checked(value), strict=True)),
    )


def _bool_codec() -> _Codec:
    def check(value: Any) -> bool:
        if value is not True and value is not False:
            raise WrongShape("wrong-shape", f"true or false was expected, not {type(value).__name__}")
        return value

    return _Codec(check, check, "type({0}) is bool")


def _optional_codec(inner: _Codec) -> _Codec:
    return _Codec(
        lambda value: None if value is None else inner.encode(value),
        lambda value: None if value is None else inner.decode(value),
        f"({{0}} is None or {inner.test})" if inner.test else "",
    )


def _enum_codec(kind: type[enum.Enum]) -> _Codec:
    members = {one.value: one for one in kind}
    kinds = {type(one.value) for one in kind}  # or True would pass for 1

    def decode(value: Any) -> enum.Enum:
        found = members.get(value) if type(value) in kinds else None
        if found is None:
            raise OutOfBounds("out-of-bounds", f"{value!r} is not a {kind.__name__}")
        return found

    return _Codec(lambda value: kind(value).value, decode)


def _record_codec(kind: type) -> _Codec:
    """Reading and writing a record is most of what a busy node does, so the code for each kind is written out: one test for all
    fields that travel as they are, and the slots set directly. Only a value that fails goes field by field, to find the reason.
    """
    names = [field.name for field in dataclasses.fields(kind)]
    hints = typing.get_type_hints(kind, include_extras=True)
    codecs = [_codec(hints[name]) for name in names]

    def shape(value: Any) -> WrongShape:
        return WrongShape("wrong-shape", f"{kind.__name__} is an array of {len(names)} fields")

    def stranger(value: Any) -> WrongShape:
        return WrongShape("wrong-shape", f"{kind.__name__} was expected, not {type(value).__name__}")

    def explain(values: list[Any]) -> None:
        for codec, one in zip(codecs, values, strict=True):
            if codec.test:
                codec.decode(one)
        raise AssertionError(f"the test and the checks of {kind.__name__} disagree")

    scope: dict[str, Any] = {"kind": kind, "new": object.__new__, "shape": shape, "stranger": stranger, "explain": explain}
    for at, (name, codec) in enumerate(zip(names, codecs, strict=True)):
        scope |= {f"set{at}": kind.__dict__[name].__set__, f"encode{at}": codec.encode, f"decode{at}": codec.decode}
    numbered = list(enumerate(zip(names, codecs, strict=True)))
    values = "[" + ", ".join(f"v{at}" for at, _ in numbered) + "]"
    tests = " and ".join(f"({codec.test.format(f'v{at}')})" for at, (_, codec) in numbered if codec.test) or "True"
    sets = [f"set{at}(self, v{at})" if codec.test else f"set{at}(self, decode{at}(v{at}))" for at, (_, codec) in numbered]
    plains = ", ".join(f"v{at}" if codec.test else f"encode{at}(v{at})" for at, (_, codec) in numbered)
    lines = [
        "def decode(value):",
        f"    if type(value) is not list or len(value) != {len(names)}: raise shape(value)",
        f"    {values} = value",
        f"    if not ({tests}): explain(value)",
        "    self = new(kind)",
        *(f"    {one}" for one in sets),
        "    return self",
        "def encode(value):",
        "    if type(value) is not kind: raise stranger(value)",
        *(f"    v{at} = value.{name}" for at, (name, _) in numbered),
        f"    if not ({tests}): explain({values})",
        f"    return [{plains}]",
    ]
    exec("\n".join(lines), scope)  # noqa: S102 - of field names and numbers of our own classes, never of a peer's bytes
    return _Codec(scope["encode"], scope["decode"])


def _make(hint: Any) -> _Codec:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        bounds = [one for one in arguments[1:] if isinstance(one, Size | Range)]
        if bounds:
            return _bounded(arguments[0], bounds[0])
        return _codec(arguments[0])
    if isinstance(hint, typing.NewType):
        return _codec(hint.__supertype__)
    if origin in (typing.Union, types.UnionType):
        inner = [one for one in arguments if one is not types.NoneType]
        if len(inner) == 1 and len(arguments) == 2:
            return _optional_codec(_codec(inner[0]))
        raise TypeError(f"unions travel through a Choice, not bare: {hint}")
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            raise TypeError(f"an array needs a bound: Annotated[{hint}, Size(0, n)]")
        return _fixed_tuple_codec([_codec(one) for one in arguments])
    if hint is int:
        return _int_codec(Range(0, INT_MAX))
    if hint is bool:
        return _bool_codec()
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum_codec(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record_codec(hint)
    raise TypeError(f"no encoding for {hint}: bytes, str and arrays need a Size")


_codec: Callable[[Any], _Codec] = functools.cache(_make)


def _bounded(kind: Any, bounds: Size | Range) -> _Codec:
    if isinstance(kind, typing.NewType):
        return _bounded(kind.__supertype__, bounds)
    if isinstance(bounds, Range) and kind is int:
        return _int_codec(bounds)
    if isinstance(bounds, Size) and kind in (bytes, str):
        return _sized_codec(kind, bounds)
    if isinstance(bounds, Size) and typing.get_origin(kind) is tuple:
        return _tuple_codec(_codec(typing.get_args(kind)[0]), bounds)
    raise TypeError(f"{bounds} does not fit {kind}")


def _unpackb(data: bytes) -> Any:
    try:
        return msgpack.unpackb(data)  # strings are text, arrays are lists, keys are strings or bytes
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise Malformed("malformed", f"not a message: {type(error).__name__}") from None


_packb: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True).pack  # one for all: it keeps the interpreter from start to end


def pack(value: Any) -> bytes:
    """The canonical bytes of a record. Raises ``EncodingError`` when a field breaks its own bounds."""
    return _packb(_codec(type(value)).encode(value))


def unpack(kind: type[T], data: bytes, most: int | None = None) -> T:
    """The record of class ``kind`` whose canonical encoding is ``data``, of at most ``most`` bytes."""
    if most is not None and len(data) > most:
        raise Oversize("oversize", f"{len(data)} bytes are more than the {most} allowed")
    plain = _unpackb(data)
    value = _codec(kind).decode(plain)
    if _packb(plain) != data:
        raise NotCanonical("not-canonical", f"not the canonical encoding of {kind.__name__}")
    return value  # type: ignore[no-any-return]


class Choice:
    """A closed set of records that share a channel. On the wire a member is ``[tag, [fields]]``.

    Tags are part of the protocol: never renumber one, never reuse one.
    """

    def __init__(self, name: str, members: dict[int, type]) -> None:
        self.name = name
        self._kinds = dict(members)
        self._codecs: dict[int, _Codec] = {}  # made when first needed
        self._tags = {kind: tag for tag, kind in members.items()}
        if len(self._tags) != len(self._kinds):
            raise TypeError(f"{name}: a record stands under two tags")

    @property
    def members(self) -> dict[int, type]:
        """Tag to record class, for documentation and tests that walk every message."""
        return dict(self._kinds)

    def pack(self, value: Any) -> bytes:
        """The canonical bytes of one member."""
        return _packb([self._tags[type(value)], _codec(type(value)).encode(value)])

    def unpack(self, data: bytes, most: int | None = None) -> Any:
        """The member whose canonical encoding is ``data``."""
        if most is not None and len(data) > most:
            raise Oversize("oversize", f"{len(data)} bytes are more than the {most} allowed")
        plain = _unpackb(data)
        if type(plain) is not list or len(plain) != 2 or type(plain[0]) is not int:
            raise WrongShape("wrong-shape", f"a {self.name} message is [tag, fields]")
        codec = self._codecs.get(plain[0])
        if codec is None:
            kind = self._kinds.get(plain[0])
            if kind is None:
                raise WrongShape("unknown-kind", f"{self.name} has no message {plain[0]}")
            codec = self._codecs[plain[0]] = _codec(kind)
        value = codec.decode(plain[1])
        if _packb(plain) != data:
            raise NotCanonical("not-canonical", f"not the canonical encoding of {type(value).__name__}")
        return value
