"""Several threads that wait for answers at a time."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_parallel(items: Sequence[Item], work: Callable[[Item], Result], threads: int) -> Generator[Result, None, None]:
    """`work(item)` of each item, in the order in which they are done; in the caller's own thread where `threads` is 1.

    The first error or interruption ends it, as `close` does: what has not begun is not begun any more, and what has is
    not waited for.
    """
    if threads == 1:
        yield from map(work, items)
        return
    pool = ThreadPoolExecutor(threads)
    futures = [pool.submit(work, item) for item in items]
    try:
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
