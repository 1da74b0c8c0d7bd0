"""Sizes as Kubernetes says them."""

import re
from typing import Final

_QUANTITY: Final = re.compile(r"([0-9]+)(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?")
_UNITS: Final = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "Pi": 1 << 50,
}  # fmt: skip


def to_bytes(quantity: str) -> int:
    """Return the bytes of a whole quantity such as `300Gi`.

    Raises:
        ValueError: it is another text.
    """
    match = _QUANTITY.fullmatch(quantity.strip())
    if match is None:
        raise ValueError(f"{quantity!r} is no size; say it as 300Gi")
    return int(match[1]) * _UNITS[match[2] or ""]
