"""Data sets from elsewhere: of the Hugging Face hub through `datasets`, and single text files.

The only file that imports datasets, when one is asked for.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from urllib.request import urlopen

SECONDS = 60.0  # until a text file counts as out of reach


def load_hub_records(path: str, configuration: str | None, split: str) -> list[Mapping]:
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
        return list(load_dataset(path, configuration, split=split))
    except (OSError, ValueError, RuntimeError, DatasetGenerationError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ValueError(f"cannot load the data set {path!r} ({reason}); give NAME=PATH of a JSONL file") from error


def download_text(address: str) -> str:
    """A text file in UTF-8, taken anew at each call. Raises ValueError where it is out of reach."""
    try:
        with urlopen(address, timeout=SECONDS) as answer:
            return answer.read().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot download {address} ({error}); give NAME=PATH of the file") from error
