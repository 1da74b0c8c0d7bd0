"""One small object, written, read back, listed and removed: whether an identity may do with a store what the archive needs."""

from typing import Final

from libs.archive.errors import ArchiveError
from libs.archive.objects import ObjectStore

FOLDER: Final = "_trial"
"""No part of the archive, should a trial leave something behind; engines that read whole folders pass over a `_` too."""
CONTENT: Final = (
    b"kalshi-data: whoever may use this archive writes, reads, lists and removes this object\n"
)
UNTRIED: Final = "not tried yet"
WELL: Final = "ok: written, read back, listed, removed"
"""What is said of a store that was tried; anything but these two is the error."""


def try_store(store: ObjectStore, name: str) -> None:
    """Try everything once, under a name of the caller's. Blocking: call it in a thread.

    Whoever always takes the same name leaves at most one object behind, and removes it the next time.

    Raises:
        ArchiveError: the store refused one of the four or is away; the message says which and in whose words.
    """
    key = f"{FOLDER}/{name}"
    # Putting reads it back and compares.
    store.put_small(key, CONTENT)
    try:
        is_listed = key in store.names(FOLDER)
    finally:
        store.forget(key)
    if not is_listed:
        raise ArchiveError(f"{store.root}/{key} was written and is not listed")


def is_of_trial(name: str) -> bool:
    """Whether an object's name is that of a trial, not of the archive."""
    return name.startswith(f"{FOLDER}/")
