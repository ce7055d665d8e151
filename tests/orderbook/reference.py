# ruff: noqa: N803, N806 - the letters are those of the rules
"""The auction's rules written down literally: every unit is one element of a list. Slow, obvious, and the judge of the other."""

from collections import defaultdict

from orderbook.core.auction import Entry, Fill
from wire.account import hash160
from wire.digest import plain

MASK = 2**64 - 1


def ticket(owner: bytes, seed: int) -> int:
    t = int.from_bytes(plain(owner)[:8], "little") ^ seed
    t ^= t >> 30
    t = t * 0xBF58476D1CE4E5B9 & MASK
    t ^= t >> 27
    t = t * 0x94D049BB133111EB & MASK
    t ^= t >> 31
    return t


def forbidden(b: Entry, s: Entry) -> bool:
    return b.owner == s.owner or hash160(s.owner) in b.avoid or hash160(b.owner) in s.avoid


def clear(buys: list[Entry], sells: list[Entry], seed: int) -> list[Fill]:
    used: dict[bytes, int] = defaultdict(int)
    fills: list[Fill] = []
    by_id = {one.id: one for one in [*buys, *sells]}

    def call(B: dict[bytes, int], S: dict[bytes, int], depth: int) -> None:
        # 1
        b = sorted((by_id[o] for o in B for _ in range(B[o])), key=lambda o: -o.price_msat)
        a = sorted((by_id[o] for o in S for _ in range(S[o])), key=lambda o: o.price_msat)
        # 2
        Q = 0
        for k in range(1, min(len(b), len(a)) + 1):
            if b[k - 1].price_msat >= a[k - 1].price_msat:
                Q = k
        if Q == 0:
            return
        # 3
        mb, ma = b[Q - 1].price_msat, a[Q - 1].price_msat

        # 4
        def losing(side: dict[bytes, int], m: int, worse: int) -> int | None:
            prices = {o: by_id[o].price_msat for o in side}
            at_m = [o for o in side if prices[o] == m]
            better = sum(side[o] for o in side if worse * prices[o] <= worse * m)
            if len(at_m) >= 2 and better > Q:
                return m
            further = [worse * prices[o] for o in side if worse * prices[o] > worse * m]
            return worse * min(further) if further else None

        losing_b, losing_s = losing(B, mb, -1), losing(S, ma, 1)
        # 5
        lo = ma if losing_b is None else max(ma, losing_b)
        hi = mb if losing_s is None else min(mb, losing_s)
        assert lo <= hi
        p = (lo + hi) // 2

        # 6
        def first(side: dict[bytes, int], m: int, worse: int) -> tuple[dict[bytes, int], dict[bytes, int]]:
            def rank(o: bytes) -> tuple[int, int, bytes]:
                e = by_id[o]
                return (worse * e.price_msat, ticket(e.owner, seed) if e.price_msat == m else 0, o)

            units = [o for o in sorted(side, key=rank) for _ in range(side[o])]
            won: dict[bytes, int] = {}
            for o in units[:Q]:
                won[o] = won.get(o, 0) + 1
            lost = {o: side[o] - won.get(o, 0) for o in side if side[o] > won.get(o, 0)}
            return won, lost

        WB, LB = first(B, mb, -1)
        WS, LS = first(S, ma, 1)
        # 7
        for o in WB:
            for r in WS:
                n = min(WB[o], WS[r])
                if n == 0 or forbidden(by_id[o], by_id[r]):
                    continue
                fills.append(Fill(buy=by_id[o], sell=by_id[r], quantity=n, price_msat=p, buy_from=used[o], sell_from=used[r]))
                used[o] += n
                used[r] += n
                WB[o] -= n
                WS[r] -= n
        # 8
        RB = {o: n for o, n in WB.items() if n}
        RS = {o: n for o, n in WS.items() if n}
        if depth > 0 and RB:
            call(RB, LS, depth - 1)
            call(LB, RS, depth - 1)

    call({o.id: o.quantity for o in buys}, {o.id: o.quantity for o in sells}, 4)
    return fills
