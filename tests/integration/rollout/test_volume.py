"""`kalshi-data volume grow` with a program named kubectl that answers from a script."""

from pathlib import Path
from typing import Any

import pytest

from services.rollout.errors import WordsWrong
from services.rollout.volume import MAKE, bytes_of
from services.rollout.volume_command import EXIT_OK, EXIT_STOPPED, EXIT_USAGE, main
from tests.integration.rollout.world import World, world

__all__ = ["world"]

WORDS = ["grow", "kd", "400Gi", "--zone", "a", "-n", "data"]


@pytest.fixture
def disk(world: World) -> World:
    """A database of 200 GiB."""
    world.change(claim={"wanted": "200Gi", "has": "200Gi"}, template="200Gi")
    return world


def verbs(world: World) -> list[str]:
    """What kubectl was asked to change, in this order."""
    return [call[1] for call in world.calls() if call[1] != "get"]


def test_claim_first_then_the_statefulset_around_its_pod(
    disk: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """The volume has its size before the StatefulSet is made again, without what the API gave it; nothing is left behind."""
    assert main(WORDS, look_s=0.01) == EXIT_OK
    assert verbs(disk) == ["patch", "delete", "apply"]
    assert disk.state["claim"] == {"wanted": "400Gi", "has": "400Gi"}
    made: dict[str, Any] = disk.state["made"]
    (template,) = made["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "400Gi"
    assert made["metadata"]["labels"]["kalshi-data.io/zone"] == "a"
    assert not {"status"} & made.keys()
    assert not {"uid", "resourceVersion"} & made["metadata"].keys()
    shown = capsys.readouterr().out
    assert "has 200Gi, Resizing" in shown
    assert f"if this is broken off: {MAKE} -f" in " ".join(shown.split())
    assert "Set the zone's database.storage.size to 400Gi" in shown


def test_what_was_left_halfway_is_ended(disk: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A claim that has its size is not patched again; a StatefulSet that has it is not made again."""
    disk.change(claim={"wanted": "400Gi", "has": "400Gi"})
    assert main(WORDS, look_s=0.01) == EXIT_OK
    assert verbs(disk) == ["delete", "apply"]
    disk.change(template="400Gi")
    assert main(WORDS, look_s=0.01) == EXIT_OK
    assert verbs(disk) == []


@pytest.mark.parametrize("words", [["--zone", "a", "400Gi"], ["400Gi", "--zone", "a"], ["--zone", "a", "kd", "400Gi"], ["kd", "--zone", "a", "400Gi"]])  # fmt: skip
def test_the_release_may_be_left_out(disk: World, words: list[str]) -> None:
    """Then the namespace's only one is meant; it stands before the size."""
    assert main(["grow", *words], look_s=0.01) == EXIT_OK
    asked = next(call for call in disk.calls() if call[2] == "statefulsets")
    labels = "app.kubernetes.io/component=database,kalshi-data.io/zone=a"
    release = "app.kubernetes.io/instance=kd," if "kd" in words else ""
    assert asked[asked.index("--selector") + 1] == release + labels
    assert disk.state["claim"]["wanted"] == "400Gi"


@pytest.mark.parametrize("word", ["data", "--force"])
def test_a_word_too_many_is_refused(
    word: str, disk: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is asked."""
    with pytest.raises(SystemExit):
        main(["grow", "kd", "--zone", "a", "400Gi", word])
    assert f"{word}: expected [RELEASE] SIZE" in capsys.readouterr().err
    assert disk.calls() == []


def test_a_held_zones_volume_grows_and_its_old_version_is_not_forgotten(
    disk: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """A StatefulSet that is made again would bring its pod back new; when the zone is released the same words do the rest."""
    disk.change(revisions={"currentRevision": "kd-database-a-1", "updateRevision": "kd-database-a-2"})  # fmt: skip
    assert main(WORDS, look_s=0.01) == EXIT_STOPPED
    assert verbs(disk) == ["patch"]
    assert disk.state["claim"] == {"wanted": "400Gi", "has": "400Gi"}
    assert "run this again when its zone is released" in " ".join(capsys.readouterr().out.split())
    disk.change(revisions={"currentRevision": "kd-database-a-2", "updateRevision": "kd-database-a-2"})  # fmt: skip
    assert main(WORDS, look_s=0.01) == EXIT_OK
    assert verbs(disk) == ["delete", "apply"]


def test_what_cannot_be_is_refused_before_anything_is_changed(
    disk: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """A class that cannot grow, a smaller size, a size that is none."""
    disk.change(can_grow=False)
    assert main(WORDS, look_s=0.01) == EXIT_STOPPED
    assert "allowVolumeExpansion" in capsys.readouterr().out
    assert main(["grow", "kd", "100Gi", "--zone", "a"]) == EXIT_USAGE
    assert "never shrinks" in capsys.readouterr().err
    assert main(["grow", "kd", "big", "--zone", "a"]) == EXIT_USAGE
    assert verbs(disk) == []


def test_a_statefulset_that_cannot_be_made_is_kept_in_a_file(
    disk: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its pod runs on, and the file is named."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    disk.change(create_fails=True)
    assert main(WORDS, look_s=0.01) == EXIT_STOPPED
    (kept,) = tmp_path.glob("kd-database-a-*.json")
    assert f"{MAKE} -f {kept}".replace(" ", "") in "".join(capsys.readouterr().out.split())
    assert '"storage": "400Gi"' in kept.read_text()


def test_sizes_are_read_as_kubernetes_does() -> None:
    """Binary and decimal units; nothing else."""
    assert bytes_of("1Gi") == 1 << 30
    assert bytes_of("500M") == 500_000_000
    assert bytes_of("1.5Ti") == 3 << 39
    for wrong in ("", "Gi", "-1Gi", "10GiB", "ten"):
        with pytest.raises(WordsWrong):
            bytes_of(wrong)
