"""Errors say what happens next; the class is the decision, the text is the sentence a person reads.

Local and remote blame never share a class:

- ``Ignore``      drop it, count it by ``code``, nobody is to blame (late, duplicate, for another network);
- ``Misbehaved``  drop it, count it and lower the sender's standing by ``penalty``;
- ``Refused``     we will not do what was asked, and the asker is told why;
- ``LocalFault``  this machine, its disk, its settings or its chain is at fault; the owner is told what to do.
"""


class BitwrkError(Exception):
    """Base of all named errors. ``code`` is a short stable word for counters and tests."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class Ignore(BitwrkError):
    """Drop the input and count it; the sender is not blamed."""


class Misbehaved(BitwrkError):
    """Drop the input, count it and lower the sender's standing by ``penalty`` points."""

    def __init__(self, code: str, sentence: str, penalty: int = 10) -> None:
        super().__init__(code, sentence)
        self.penalty = penalty


class Refused(BitwrkError):
    """What was asked will not be done; the sentence goes back to the asker."""


class LocalFault(BitwrkError):
    """Something on this machine has to be mended by its owner."""


class InvariantBroken(BitwrkError):
    """A rule that must always hold did not. Spending stops."""


def require(holds: bool, code: str, sentence: str) -> None:
    """Raise ``InvariantBroken`` unless ``holds``. Stays on in production, unlike ``assert``."""
    if not holds:
        raise InvariantBroken(code, sentence)


def named_in(error: BaseException) -> BitwrkError | None:
    """The first named error in ``error``, which may be one, or a group of errors that holds one; else None."""
    if isinstance(error, BitwrkError):
        return error
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            found = named_in(one)
            if found is not None:
                return found
    return None
