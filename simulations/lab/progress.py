"""A bar with the time left, on standard error, or nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(name: str, *, visible: bool) -> Iterator[Callable[[float], None]]:
    """Something to call with the share that is done."""
    if not visible:
        yield lambda _share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(name, total=1.0)
        yield lambda share: progress.update(task, completed=share)
