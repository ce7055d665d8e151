"""What the model checker explores: the small settings of the tests, and the large ones of ``make model``.

python -m tests.orderbook.settings
"""

import sys
import time
from typing import Final

from orderbook.core.messages import Side
from tests.orderbook.model import Model, Person, Setting, remember

BUYER, SELLER = Person(side=Side.BUY, quantity=2), Person(side=Side.SELL, quantity=2)
ONE_BUYER, ONE_SELLER = Person(side=Side.BUY, quantity=1), Person(side=Side.SELL, quantity=1)
FALSE_BUYER = Person(side=Side.BUY, quantity=2, adversary=True)
FALSE_SELLER = Person(side=Side.SELL, quantity=2, adversary=True)
TAKES_A_UNIT, MOVES_THE_PRICE = 200, 320

SMALL: Final = (
    Setting(name="a pair, an order in doubt", people=(BUYER, SELLER), epochs=1, stranger=TAKES_A_UNIT),
    Setting(name="a pair, the price in doubt", people=(BUYER, SELLER), epochs=1, stranger=MOVES_THE_PRICE),
    Setting(name="a pair over two epochs", people=(BUYER, SELLER)),
    Setting(name="a pair who want less", people=(BUYER, SELLER), epochs=1, lessened=1),
    Setting(name="a buyer and two sellers", people=(BUYER, ONE_SELLER, ONE_SELLER), epochs=1, crashes=0),
    Setting(name="a seller and two buyers", people=(SELLER, ONE_BUYER, ONE_BUYER), epochs=1, crashes=0),
    Setting(name="a false seller", people=(BUYER, FALSE_SELLER), epochs=1, stranger=TAKES_A_UNIT),
    Setting(name="a false buyer", people=(SELLER, FALSE_BUYER), epochs=1),
)

LARGE: Final = (
    *SMALL,
    Setting(
        name="a pair, two crashes, journals lost",
        people=(BUYER, SELLER),
        epochs=1,
        crashes=2,
        relapses=2,
        stranger=TAKES_A_UNIT,
    ),
    Setting(name="a pair over two epochs, journals lost", people=(BUYER, SELLER), crashes=1, relapses=1),
    Setting(name="a pair, a fast buyer", people=(Person(side=Side.BUY, quantity=2, ahead_ms=200), SELLER)),
    Setting(name="a pair, a fast seller", people=(BUYER, Person(side=Side.SELL, quantity=2, ahead_ms=200))),
    Setting(name="a buyer and two sellers who crash", people=(BUYER, ONE_SELLER, ONE_SELLER), epochs=1),
    Setting(name="a seller and two buyers who crash", people=(SELLER, ONE_BUYER, ONE_BUYER), epochs=1),
    Setting(name="a false seller over two epochs", people=(BUYER, FALSE_SELLER), stranger=TAKES_A_UNIT),
    Setting(name="a false buyer over two epochs", people=(SELLER, FALSE_BUYER)),
)


def honest(setting: Setting) -> bool:
    """Whether nobody in it is an adversary."""
    return not any(one.adversary for one in setting.people)


def checked(setting: Setting, *, most: int, calm_every: int) -> tuple[Model, int]:
    """Explore a setting; where all are honest, follow every so many of its states through a calm to the end."""
    model = Model(setting)
    states = model.explore(most)
    if honest(setting) and not setting.relapses:  # whose journal is lost may find his own old order in his way
        for state in list(model.parents)[::calm_every]:
            model.calm(state)
    return model, states


def main() -> int:
    """Explore all large settings and tell how large they were."""
    remember(setattr)
    started, total = time.monotonic(), 0
    for setting in LARGE:
        before = time.monotonic()
        model, states = checked(setting, most=5_000_000, calm_every=7)
        total += states
        facts = f"{states:>9,} states, {len(model.peers):>6,} of single desks, {len(model.letters):>5,} letters"
        print(f"{setting.name:<42} {facts}, {time.monotonic() - before:6.1f} s", flush=True)
    print(f"{total:,} states in {time.monotonic() - started:.0f} s; every invariant holds in all of them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
