"""Twins of a desk, and what tells two desks apart: for whoever explores many ways from one state.

Only what changes is copied; keys, networks, messages and views are shared. ``test_model`` holds the lists below to the desk's
fields, so that a new one is not forgotten.
"""

from typing import Any, TypeVar

from orderbook.core.desk import Desk
from orderbook.core.evidence import Witness
from orderbook.core.line import Line, Standing
from orderbook.core.pen import Pen
from orderbook.core.talks import Talks

T = TypeVar("T")
_LINE = ("slot", "wanted", "promised", "avoid", "changed_at", "written_epoch", "writes")

FIELDS: dict[type, frozenset[str]] = {
    Desk: frozenset({"_clock", "_pen", "_talks", "_epoch", "_out"}),
    Pen: frozenset(
        {
            "_key",
            "_network",
            "_clock",
            "_run",
            "lines",
            "orders",
            "_disowned",
            "_next",
            "_reserved",
            "_signed",
            "_confirmed",
            "_hushed",
            "_epoch",
        }
    ),
    Talks: frozenset(
        {
            "_key",
            "_network",
            "_clock",
            "_pen",
            "_views",
            "_agreements",
            "_held",
            "_compared",
            "_witness",
            "out",
        }
    ),
    Witness: frozenset({"_signed"}),
}


def _like(one: T, **changed: Any) -> T:
    """A shallow copy, with some fields changed."""
    kind = type(one)
    copied = kind.__new__(kind)
    slots = getattr(kind, "__slots__", None)
    for name in slots if slots is not None else vars(one):
        setattr(copied, name, changed[name] if name in changed else getattr(one, name))
    return copied


def twin(desk: Desk) -> Desk:
    """A desk that goes its own way from here."""
    pen, talks = desk._pen, desk._talks
    standings = {id(one): one for one in pen.orders.values()}
    standings.update({id(one.standing): one.standing for one in pen.lines.values() if one.standing is not None})
    lines: dict[int, Line] = {id(one): _like(one) for one in [*pen.lines.values(), *(one.line for one in standings.values())]}
    copies: dict[int, Standing] = {
        name: _like(one, line=lines[id(one.line)], signed_units=list(one.signed_units)) for name, one in standings.items()
    }
    for line in lines.values():
        if line.standing is not None:
            line.standing = copies.get(id(line.standing))
    new_pen = _like(
        pen,
        lines={name: lines[id(one)] for name, one in pen.lines.items()},
        orders={name: copies[id(one)] for name, one in pen.orders.items()},
        _disowned=dict(pen._disowned),
        _signed=dict(pen._signed),
        _confirmed=list(pen._confirmed),
        _hushed=set(pen._hushed),
    )
    new_talks = _like(
        talks,
        _pen=new_pen,
        _views=dict(talks._views),
        _agreements={place: _like(one) for place, one in talks._agreements.items()},
        _held=dict(talks._held),
        _compared=set(talks._compared),
        _witness=_like(talks._witness, _signed={name: list(kept) for name, kept in talks._witness._signed.items()}),
        out=list(talks.out),
    )
    return _like(desk, _pen=new_pen, _talks=new_talks, _out=list(desk._out))


def fingerprint(desk: Desk) -> Any:
    """Equal for desks that will answer alike from here on. Moments of saying again are left out: what is said again was said."""
    pen, talks = desk._pen, desk._talks
    return (
        desk._epoch,
        pen._next,
        pen._reserved,
        frozenset(pen._disowned),
        frozenset(pen._hushed),
        frozenset(pen._signed.items()),
        frozenset(
            (name, *(getattr(one, field) for field in _LINE), None if one.standing is None else one.standing.id)
            for name, one in pen.lines.items()
        ),
        frozenset(
            (name, one.closed, one.signed_epoch, tuple(sorted((units.start, units.stop) for units in one.signed_units)))
            for name, one in pen.orders.items()
        ),
        frozenset(
            (place, one.phase, one.match, one.signature, one.repeat_at is None, one.peer, one.fill)
            for place, one in talks._agreements.items()
        ),
        frozenset(talks._held.items()),
        frozenset(talks._compared),
        frozenset(talks._views.items()),
        frozenset((name, frozenset(kept)) for name, kept in talks._witness._signed.items()),
    )
