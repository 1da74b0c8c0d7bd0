"""The command line of `kalshi-data rollout`, and what makes two rollouts the same."""

from pathlib import Path

import pytest

from services.rollout.errors import AnswerUnreadable, WordsWrong
from services.rollout.extension import Extension, read_extension
from services.rollout.fingerprint import fingerprint
from services.rollout.helm import upgrade_words
from services.rollout.words import parse


def test_words_of_helm_are_handed_on_in_their_order() -> None:
    """Where the cluster is goes to both programs, each in its own words."""
    wanted = parse(
        ["kd", "./chart", "-n", "data", "--kube-context", "c", "-f", "one.yaml", "--set", "a=1", "--version", "1.2.3",
         "--values", "two.yaml", "--devel"]
    )  # fmt: skip
    assert wanted.helm == (
        "-f", "one.yaml", "--set", "a=1", "--version", "1.2.3", "--values", "two.yaml", "--devel",
    )  # fmt: skip
    assert wanted.common_helm == ("--namespace", "data", "--kube-context", "c")
    assert wanted.common_kubectl == ("--namespace", "data", "--context", "c")


def test_both_programs_look_where_the_environment_sends_helm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else kubectl would look at another release; what is said wins."""
    monkeypatch.setenv("HELM_NAMESPACE", "data")
    monkeypatch.setenv("HELM_KUBECONTEXT", "c")
    wanted = parse(["kd", "chart"])
    assert wanted.common_kubectl == ("--namespace", "data", "--context", "c")
    assert parse(["kd", "chart", "-n", "other"]).common_kubectl[:2] == ("--namespace", "other")


def test_without_values_the_releases_own_are_kept() -> None:
    """A step sets one value, and helm would otherwise forget all others."""
    assert parse(["kd", "chart", "--version", "2"]).helm == (
        "--version",
        "2",
        "--reset-then-reuse-values",
    )
    assert parse(["kd", "chart", "--reuse-values"]).helm == ("--reuse-values",)


@pytest.mark.parametrize(
    "word", ["--wait", "--wait=true", "--atomic", "--install", "-i", "--description", "--set=rollout.released={a}"]
)  # fmt: skip
def test_what_would_break_the_procedure_is_refused(word: str) -> None:
    """With the reason."""
    with pytest.raises(WordsWrong, match=": "):
        parse(["kd", "chart", word])


def test_a_steps_value_is_said_last() -> None:
    """So that it wins over files and earlier words; null takes the restriction away."""
    words = upgrade_words("kd", "chart", ("-f", "x"), ("a", "b"))
    assert words == [
        "upgrade",
        "kd",
        "chart",
        "-f",
        "x",
        "--set-json",
        'rollout.released=["a","b"]',
    ]
    assert upgrade_words("kd", "chart", (), ())[-1] == "rollout.released=[]"
    assert upgrade_words("kd", "chart", (), None)[-1] == "rollout.released=null"


def test_the_same_contents_are_the_same_rollout(tmp_path: Path) -> None:
    """Not the names of files; another byte of the chart or of a file of values is another one."""
    chart, values, other = tmp_path / "chart", tmp_path / "v.yaml", tmp_path / "w.yaml"
    chart.mkdir()
    (chart / "Chart.yaml").write_text("version: 1")
    values.write_text("a: 1")
    other.write_text("a: 1")
    first = fingerprint(str(chart), ("-f", str(values)))
    assert first == fingerprint(str(chart), ("-f", str(other)))
    different = {
        first,
        fingerprint(str(chart), ("-f", str(values), "--set", "b=1")),
        fingerprint("repo/chart", ("-f", str(values), "--version", "1.2.3")),
    }
    other.write_text("a: 2")
    different.add(fingerprint(str(chart), ("-f", str(other))))
    (chart / "Chart.yaml").write_text("version: 2")
    different.add(fingerprint(str(chart), ("-f", str(values))))
    assert len(different) == 5


@pytest.mark.parametrize(
    ("chart", "words"),
    [
        ("repo/chart", ()), ("repo/chart", ("--version", "1.2")), ("repo/chart", ("--version", ">=1.2.3")),
        ("repo/chart", ("--version", "1.2.3", "--version", "^1.0.0")), ("repo/chart", ("--set", "1.2.3")),
        ("oci://r/chart", ("--devel",)), ("oci://1.2.3.4/chart", ()), ("https://h/chart.tgz", ()),
    ],
)  # fmt: skip
def test_a_chart_that_may_be_another_tomorrow_is_refused(
    chart: str, words: tuple[str, ...]
) -> None:
    """It would bear the name of a rollout that ended well, whose only step is everybody at once."""
    with pytest.raises(WordsWrong, match=r"--version 1\.2\.3"):
        fingerprint(chart, words)


def test_a_chart_that_is_named_exactly_is_taken() -> None:
    """By its version or its digest; another one is another rollout."""
    names = {
        fingerprint("repo/chart", ("--version", "1.2.3")),
        fingerprint("repo/chart", ("--version", "v1.2.4-rc.1+7")),
        fingerprint("oci://r:5000/chart:1.2.3", ()),
        fingerprint("https://h/kalshi-data-1.2.3.tgz", ()),
        fingerprint(f"oci://r/chart@sha256:{'0' * 64}", ()),
    }
    assert len(names) == 5


def test_the_databases_answer_is_read() -> None:
    """Its versions before and after; none where there is no TimescaleDB; anything else is no answer."""
    assert read_extension("timescaledb 2.28.3 2.29.2\n").says == "TimescaleDB 2.28.3 -> 2.29.2"
    assert read_extension("timescaledb 2.29.2 2.29.2").says == "TimescaleDB 2.29.2"
    assert read_extension("timescaledb none ") == Extension("", "")
    assert read_extension("timescaledb none  2.29.2") == Extension("", "")
    assert read_extension("timescaledb 2.28.3 2.29.2 2.29.2").says == "TimescaleDB 2.28.3 -> 2.29.2"
    assert read_extension("timescaledb 2.30.0 2.30.0 2.29.2").says == (
        "TimescaleDB 2.30.0 stays: the server has 2.29.2 and knows no way to it; keep the newer database.image"
    )
    with pytest.raises(AnswerUnreadable):
        read_extension("psql: error")
