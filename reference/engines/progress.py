"""A bar on a terminal for whatever takes longer than a few seconds."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


def with_progress(items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
    """The items themselves, with a bar on stderr after two seconds; none where stderr is no terminal."""
    return tqdm(items, total=total, desc=label, delay=2, leave=False, disable=None, dynamic_ncols=True)
