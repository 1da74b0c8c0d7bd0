"""Why the production writer stops and begins anew; in every case nothing of its memory counts any longer."""

from typing import ClassVar

from libs.store.errors import StoreError


class WriterStopped(StoreError):
    """This writer may not go on as it is; take over again, read the cursors again."""

    retryable: ClassVar[bool] = True


class WriterFenced(WriterStopped):
    """Another writer has taken over production."""


class HistoryChanged(WriterStopped):
    """Production is not as this writer left it: restored, or a commit is in doubt."""
