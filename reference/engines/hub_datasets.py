"""Data sets of the Hugging Face hub, through `datasets`: the only file that imports it, when one is asked for."""

from collections.abc import Mapping
from importlib.util import find_spec


def load_hub_records(path: str, configuration: str | None, split: str, revision: str | None = None) -> list[Mapping]:
    """The records of a split, in its order. `path` may also be a local folder that `datasets` can load.

    Raises:
        ValueError: `datasets` is not installed, or there is no such data set within reach.
    """
    if find_spec("datasets") is None:
        raise ValueError(
            f"{path} is a data set of the hub: pip install '.[hub]' to load it, or give NAME=PATH of a file"
        )
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    try:
        return list(load_dataset(path, configuration, split=split, revision=revision))
    except (OSError, ValueError, RuntimeError, DatasetGenerationError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"cannot load the data set {path!r} ({reason}); give NAME=PATH of a JSONL file") from error
