"""Trying a store leaves nothing in the archive, whatever it may not do."""

from pathlib import Path

import pytest

from libs.archive.catalogue import read_catalogue
from libs.archive.errors import ArchiveError
from libs.archive.objects import ObjectStore
from libs.archive.trial import FOLDER, try_store
from services.archiver.command import main
from tests.unit.archive.bucket import sound


def test_a_trial_leaves_nothing(tmp_path: Path) -> None:
    """Written and removed; and again."""
    store = ObjectStore(str(tmp_path / "archive"))
    for _ in range(2):
        try_store(store, "somebody")
        assert list(store.names()) == []


def test_what_is_not_listed_is_an_error_and_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that shows nothing of what it took cannot be verified later."""
    store = ObjectStore(str(tmp_path / "archive"))
    with monkeypatch.context() as patched:
        patched.setattr(store, "names", lambda _prefix="": iter(()))
        with pytest.raises(ArchiveError, match="is not listed"):
            try_store(store, "somebody")
    assert list(store.names()) == []


def test_what_cannot_be_removed_is_one_object_and_no_part_of_the_archive(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it is tried; `archive list` and `archive verify` say what they said before."""
    bucket = sound(tmp_path)
    before = read_catalogue(bucket.store)
    store = bucket.store
    with monkeypatch.context() as patched:
        patched.setattr(store, "forget", _refuse)
        for _ in range(3):
            with pytest.raises(ArchiveError, match="taken away"):
                try_store(store, "somebody")
    assert list(store.names(FOLDER)) == [f"{FOLDER}/somebody"]
    assert read_catalogue(store) == before
    assert before.faults == []
    for action in ("list", "verify"):
        assert main([action, "--root", str(bucket.root), "--json"]) == 0
        assert FOLDER not in capsys.readouterr().out
    try_store(store, "somebody")
    assert list(store.names(FOLDER)) == []


def test_a_bucket_with_nothing_but_a_trial_is_empty(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """To verify one proves nothing, and is said to."""
    ObjectStore(str(tmp_path)).put_small(f"{FOLDER}/somebody", b"left behind")
    assert main(["verify", "--root", str(tmp_path), "--json"]) == 1
    assert "nothing lies there" in capsys.readouterr().out


def _refuse(key: str) -> None:
    raise ArchiveError(f"{key} could not be taken away: Access Denied")
