import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.cli import config_command
from services.cli.__main__ import VERBS, main

ROOT = Path(__file__).parents[3]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`kalshi-data --version` prints the build and ends with 0."""
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("kalshi-data v1.0.0 (")


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a verb the help is printed, and that is not success."""
    assert main([]) == 2
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)


def test_an_unknown_verb_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With the verbs there are."""
    with pytest.raises(SystemExit) as end:
        main(["conquer"])
    assert end.value.code == 2
    assert "'local'" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_has_its_command(verb: str) -> None:
    """The module a verb names exists and has `main`."""
    assert callable(importlib.import_module(VERBS[verb].module).main)


def test_starting_is_fast_and_imports_no_service() -> None:
    """The program itself loads no service and none of the large libraries."""
    check = (
        "import sys, services.cli.__main__;"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " {'pyarrow','sqlalchemy','asyncpg','aiohttp','dynaconf','rich'}"
        " or m.startswith('services.') and not m.startswith('services.cli')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("verb", [["status"], ["gaps"], ["coverage"], ["readmit", "a"], ["archive", "list"]])  # fmt: skip
def test_commands_read_the_file_of_the_environment(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """KALSHI_DATA_CONFIG, and without it what the last local run left here; a fault names the file."""
    monkeypatch.chdir(tmp_path)
    left = tmp_path / "var" / "local" / "config" / "production.yaml"
    left.parent.mkdir(parents=True)
    left.write_text("nobody_knows_left: 1\n", encoding="utf-8")
    (tmp_path / "told.yaml").write_text("nobody_knows_told: 1\n", encoding="utf-8")
    monkeypatch.delenv("KALSHI_DATA_CONFIG", raising=False)
    assert main(verb) == 2
    assert "nobody_knows_left: " in capsys.readouterr().err
    monkeypatch.setenv("KALSHI_DATA_CONFIG", str(tmp_path / "told.yaml"))
    assert main(verb) == 2
    assert "nobody_knows_told: " in capsys.readouterr().err


def test_who_stops_reading_gets_no_traceback() -> None:
    """`... | head`: the reader's end is gone before the document is written; a status, and not a word of it."""
    reads, writes = os.pipe()
    os.close(reads)
    config = str(ROOT / "config" / "deduplicator.local.yaml")
    done = subprocess.run(
        [sys.executable, "-m", "services.cli", "config", "show", "--service", "archiver", "--config", config, "--json"],
        cwd=ROOT, stdout=writes, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, "")


def test_config_show_hides_secrets_and_names_sources(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every setting of the service, the password as asterisks, the override with its variable."""
    monkeypatch.setenv("KALSHI_DATA_PRODUCTION__PASSWORD", "hunter2")
    config = str(ROOT / "config" / "deduplicator.local.yaml")
    assert config_command.main(["show", "--service", "archiver", "--config", config, "--json"]) == 0
    text = capsys.readouterr().out
    rows = {row["key"]: row for row in json.loads(text)}
    assert rows["production.password"] == {
        "key": "production.password",
        "value": "***",
        "source": "environment KALSHI_DATA_PRODUCTION__PASSWORD",
    }
    assert rows["archiver.window_s"]["source"] == "file deduplicator.local.yaml"
    assert "hunter2" not in text


def test_config_show_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """The same rows for eyes, one a line."""
    config = str(ROOT / "config" / "deduplicator.local.yaml")
    assert config_command.main(["show", "--service", "archiver", "--config", config]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["key", "value", "source"]
    assert any(
        line.split() == ["health.port", "8080", "file", "deduplicator.local.yaml"] for line in lines
    )


def test_config_show_lists_every_fault(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Status 2; standard error has the faults, standard output nothing."""
    (tmp_path / "c.yaml").write_text("archiver: {rot: x}\n")
    arguments = ["show", "--service", "archiver", "--config", str(tmp_path / "c.yaml")]
    assert config_command.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "archiver.rot: unknown key (file c.yaml); did you mean archiver.root?" in captured.err
    assert "production.database: missing" in captured.err


@pytest.mark.parametrize("program", [["run", "archiver"], []])
def test_run_is_the_service_itself(program: list[str]) -> None:
    """`kalshi-data run X` and `python -m services.X` end the same way."""
    module = "services.cli" if program else "services.archiver"
    config = str(ROOT / "config" / "deduplicator.local.yaml")
    done = subprocess.run(
        [sys.executable, "-m", module, *program, "--config", config, "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "archiver: the configuration is complete\n")
