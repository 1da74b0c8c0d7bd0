"""Why the production writer begins anew, when nothing of its memory counts any longer; and what it refuses."""

from typing import ClassVar

from libs.store.errors import StoreError


class WriterStopped(StoreError):
    """This writer may not go on as it is; take over again, read the cursors again."""

    retryable: ClassVar[bool] = True


class RowsRefused(StoreError):
    """Production cannot or must not take rows of this transaction; nothing of it stands, the writer goes on.

    Whoever brought them is found by merging apart; the text begins with one word for why.
    """


class WriterFenced(WriterStopped):
    """Another writer has taken over production."""


class HistoryChanged(WriterStopped):
    """Production is not as this writer left it: restored, or a commit is in doubt."""
