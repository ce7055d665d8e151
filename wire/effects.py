"""What every core can ask of its driver: keep this. The journal's rule is stated here once.

A core's ``handle(event, now)`` returns a tuple of effects. When a ``Save`` is among them, the driver commits every ``Save``
of that call in one transaction *before* it performs any of the others (those are *durable*); without one they leave at once
(*free*).
After a restart the driver hands a core its rows back and performs what ``resume(now)`` returns, so every effect is idempotent.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """Keep ``value`` under ``key`` in ``table``, or forget the key when ``value`` is None."""

    table: str
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """Something was dropped or noticed: add one to the counter ``code`` (a short stable word)."""

    code: str
    amount: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Blame:
    """The peer (39-byte id) broke a rule: lower its standing by ``penalty`` for ``code``, explained by ``sentence``."""

    peer: bytes
    code: str
    sentence: str
    penalty: int
