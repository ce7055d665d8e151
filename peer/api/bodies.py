"""The JSON bodies that the local API takes. What is not in them is refused, because a misspelt limit would be a limit ignored."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from wire.limits import (
    API_WAIT_DEFAULT_S,
    API_WAIT_MAX_S,
    ARTICLE_MAX_CHARS,
    HTTP_WORKER_NAME_MAX_CHARS,
    HTTP_WORKER_URL_MAX_CHARS,
    MANDATE_MINUTES_MAX,
    MANDATE_TRADES_MAX,
    WORKERS_MAX,
)

Article = Annotated[str, Field(min_length=1, max_length=ARTICLE_MAX_CHARS, pattern=r"^[!-~]+$", examples=["net.bitwrk/rays/1"])]
Price = Annotated[str, Field(max_length=64, description="an amount, unit first", examples=["uBTC 340"])]
ContentId = Annotated[
    str, Field(pattern=r"^[0-9a-fA-F]{64}$", description="a content in this node's store, 64 hexadecimal digits")
]
WorkerName = Annotated[str, Field(min_length=1, max_length=ARTICLE_MAX_CHARS + HTTP_WORKER_NAME_MAX_CHARS)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class BuyOrder(_Body):
    """Have a stored work done; nobody waits for it."""

    side: Literal["buy"]
    article: Article
    price: Price | None = Field(default=None, description="the highest price; null: only for nothing, in the free book")
    work: ContentId
    wait: float = Field(
        default=API_WAIT_DEFAULT_S, gt=0, le=API_WAIT_MAX_S, allow_inf_nan=False, description="seconds to look for a seller"
    )


class SellOrder(_Body):
    """Sell the work of a worker of this node."""

    side: Literal["sell"]
    article: Article
    worker: WorkerName = Field(description="a name from /v1/workers")
    price: Price | None = Field(default=None, description="the price of one unit; null: for nothing, in the free book")
    slots: int = Field(default=1, ge=1, le=WORKERS_MAX, description="how many units at once")


Order = Annotated[BuyOrder | SellOrder, Field(discriminator="side")]


class NewMandate(_Body):
    """Allow trades at a price without being asked. Both limits may apply; with neither it is good for one trade."""

    side: Literal["buy", "sell"]
    article: Article
    price: Price
    trades: int | None = Field(default=None, ge=1, le=MANDATE_TRADES_MAX, description="how many trades")
    minutes: int | None = Field(default=None, ge=1, le=MANDATE_MINUTES_MAX, description="for how long from now")


class NewWorker(_Body):
    """A worker of somebody else's making: it takes work by POST at ``pushurl`` and answers with the result."""

    id: str = Field(min_length=1, max_length=HTTP_WORKER_NAME_MAX_CHARS, description="its name; letters, digits and . _ : -")
    article: Article
    pushurl: str = Field(max_length=HTTP_WORKER_URL_MAX_CHARS, examples=["http://127.0.0.1:9000/work"])
