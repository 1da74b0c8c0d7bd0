import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from libs.runtime.sections import (
    CaptureSettings,
    ExchangeSettings,
    GathererSource,
    SlotSettings,
    StoreSettings,
)
from libs.runtime.settings import Between, ConfigInvalid, Secret, describe, load_settings


@dataclass(frozen=True)
class Part:
    name: str
    count: Annotated[int, Between(1, 10)] = 3
    ratio: float = 0.5
    on: bool = False
    kind: Literal["json", "text"] = "json"
    path: Path = Path("here")
    maybe: int | None = None
    many: tuple[str, ...] = ("a",)
    numbers: tuple[int, ...] = ()

    def check(self) -> Iterator[str]:
        if self.count == 7:
            yield "count: seven is taken"


@dataclass(frozen=True)
class Sample:
    zone: str
    part: Part
    other: Part | None = None
    prepared: SlotSettings = field(default_factory=lambda: SlotSettings(orderbook=8))


@dataclass(frozen=True)
class Stores:
    store: StoreSettings
    gatherers: tuple[GathererSource, ...] = ()


def write(folder: Path, text: str) -> Path:
    path = folder / "sample.yaml"
    path.write_text(text)
    return path


def faults(cls: type, path: Path | None, environ: dict[str, str], *foreign: str) -> tuple[str, ...]:
    with pytest.raises(ConfigInvalid) as caught:
        load_settings(cls, path, environ, foreign=frozenset(foreign))
    return caught.value.faults


MINIMAL = "zone: a\npart: {name: x}\n"


def test_defaults_file_and_environment_lie_over_each_other(tmp_path: Path) -> None:
    """The environment wins over the file, the file over the default, and each value knows its source."""
    path = write(tmp_path, "zone: a\npart: {name: x, count: 4, ratio: 1}\n")
    loaded = load_settings(Sample, path, {"KALSHI_DATA_PART__COUNT": "5", "UNRELATED": "1"})
    assert loaded.value == Sample("a", Part("x", count=5, ratio=1.0))
    assert loaded.sources["part.count"] == "environment KALSHI_DATA_PART__COUNT"
    assert loaded.sources["part.ratio"] == "file sample.yaml"
    assert loaded.sources["part.on"] == "default"
    assert loaded.sources["zone"] == "file sample.yaml"


def test_every_scalar_type_is_read_from_its_text(tmp_path: Path) -> None:
    """The field's type says what a text means."""
    path = write(
        tmp_path,
        "zone: 1e5\npart: {name: 0123, count: 1_0, ratio: 2, on: yes, kind: text, path: /x,"
        " maybe: 7, many: [1, no], numbers: [1, 2]}\n",
    )
    expected = Part("0123", 10, 2.0, True, "text", Path("/x"), 7, ("1", "no"), (1, 2))
    assert load_settings(Sample, path, {}).value == Sample("1e5", expected)


@pytest.mark.parametrize(
    "password",
    ["12345678", "1e5", "true", "null", "@int 5", "@format {env[HOME]}", "{'a': 1}", "[1]", " x ",
     "dynaconf_merge", "@json [1]", "@read_file /etc/hostname", "0x10", "${HOME}", "a__b"],
)  # fmt: skip
def test_a_password_stays_what_it_is(password: str) -> None:
    """No text of the environment is parsed, evaluated or trimmed on its way into a text field."""
    environ = {
        "KALSHI_DATA_STORE__PASSWORD": password,
        "KALSHI_DATA_STORE__USER": password,
        "KALSHI_DATA_STORE__DATABASE": "d",
    }
    store = load_settings(Stores, None, environ).value.store
    assert store.password.reveal() == password
    assert store.user == password


def test_all_faults_are_listed_at_once_with_key_and_remedy(tmp_path: Path) -> None:
    """Missing, malformed, out of range, unknown: one run tells them all."""
    path = write(
        tmp_path, "part: {count: 11, ratio: nan, on: maybe, kind: xml, cuont: 1}\nrubbish: {a: 1}\n"
    )
    found = faults(Sample, path, {"KALSHI_DATA_TYPO": "1", "KALSHI_DATA_PART__MAYBE": "x"})
    assert found == (
        "zone: missing; set it in the file or as KALSHI_DATA_ZONE",
        "part.name: missing; set it in the file or as KALSHI_DATA_PART__NAME",
        "part.count: expected 1 to 10, got 11 (file sample.yaml)",
        "part.ratio: expected a finite number, got 'nan' (file sample.yaml)",
        "part.on: expected true or false, got 'maybe' (file sample.yaml)",
        "part.kind: expected one of json, text, got 'xml' (file sample.yaml)",
        "part.maybe: expected a whole number, got 'x' (environment KALSHI_DATA_PART__MAYBE)",
        "part.cuont: unknown key (file sample.yaml); did you mean part.count?",
        "rubbish.a: unknown key (file sample.yaml); remove it",
        "typo: unknown key (environment KALSHI_DATA_TYPO); remove it",
    )


def test_a_variable_of_the_file_must_be_set_or_have_a_default(tmp_path: Path) -> None:
    """`${VAR}` without a value is one fault, not also a missing key; `:-` serves unset and empty variables."""
    path = write(
        tmp_path, "zone: ${A}\npart: {name: '${B:-b}-${C:-c}-$$x', many: ['${D}', '${E:-}']}\n"
    )
    assert faults(Sample, path, {"C": ""}) == (
        "zone: the variable A of file sample.yaml is not set; export A or write ${A:-default}",
        "part.many.0: the variable D of file sample.yaml is not set; export D or write ${D:-default}",
    )
    value = load_settings(Sample, path, {"A": "${B}", "B": "1", "C": "", "D": "d"}).value
    assert value == Sample("${B}", Part("1-c-$x", many=("d", "")))


def test_the_environment_mends_a_variable_that_is_not_set(tmp_path: Path) -> None:
    """What a higher layer replaces needs no value below."""
    path = write(tmp_path, "zone: ${A}\npart: {name: x}\n")
    assert load_settings(Sample, path, {"KALSHI_DATA_ZONE": "b"}).value.zone == "b"


def test_sections_of_other_services_are_accepted_unread(tmp_path: Path) -> None:
    """A shared file may hold sections, variables and even unset references of others."""
    path = write(tmp_path, f"{MINIMAL}poller: {{period_s: '${{NOPE}}'}}\n")
    environ = {"KALSHI_DATA_POLLER__PERIOD_S": "1"}
    foreign = frozenset({"poller", "part"})
    assert load_settings(Sample, path, environ, foreign=foreign).value == Sample("a", Part("x"))
    assert faults(Sample, path, {})[0].startswith("poller.period_s: unknown key")


def test_one_dotenv_serves_every_process(tmp_path: Path) -> None:
    """A variable of another service's section is no mistake; one of nobody's is."""
    path = write(tmp_path, MINIMAL)
    others = {"KALSHI_DATA_PRODUCTION__PASSWORD": "p", "KALSHI_DATA_SIMULATOR__PORT": "1"}
    assert load_settings(Sample, path, others).value.zone == "a"
    assert len(faults(Sample, path, {**others, "KALSHI_DATA_PRODUCTOIN__PORT": "1"})) == 1


def test_reserved_names_and_service_links_are_no_settings(tmp_path: Path) -> None:
    """The documented few, and what Kubernetes injects for a Service `kalshi-data-registry`, do not count as unknown."""
    environ = {
        "KALSHI_DATA_CONFIG": "x",
        "KALSHI_DATA_ENV": "production",
        "KALSHI_DATA_BUILD_COMMIT": "abc",
        "KALSHI_DATA_REGISTRY_SERVICE_HOST": "10.0.0.1",
        "KALSHI_DATA_REGISTRY_SERVICE_PORT_HTTP": "80",
        "KALSHI_DATA_REGISTRY_PORT": "tcp://10.0.0.1:80",
        "KALSHI_DATA_REGISTRY_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(Sample, write(tmp_path, MINIMAL), environ).value.zone == "a"
    assert faults(Sample, write(tmp_path, MINIMAL), {"KALSHI_DATA_REGISTRY_PORT": "80"})


def test_lists_are_replaced_as_a_whole_or_changed_by_position(tmp_path: Path) -> None:
    """A text with commas replaces a list; a numbered variable reaches one entry."""
    path = write(tmp_path, "zone: a\npart: {name: x, many: [p, q]}\n")
    value = load_settings(Sample, path, {"KALSHI_DATA_PART__MANY": "K*, L*"}).value
    assert value.part.many == ("K*", "L*")
    value = load_settings(Sample, path, {"KALSHI_DATA_PART__MANY__1": "r"}).value
    assert value.part.many == ("p", "r")
    value = load_settings(Sample, path, {"KALSHI_DATA_PART__MANY": ""}).value
    assert value.part.many == ()
    assert "leave a hole" in faults(Sample, path, {"KALSHI_DATA_PART__MANY__5": "r"})[0]


def test_empty_lists_and_sections_mean_nothing_is_set(tmp_path: Path) -> None:
    """`[]` is an empty tuple; a section with only comments keeps its defaults."""
    path = write(tmp_path, "zone: a\npart: {name: x, many: []}\nprepared:\n  # orderbook: 1\n")
    assert load_settings(Sample, path, {}).value == Sample("a", Part("x", many=()))


def test_a_section_filled_in_advance_keeps_its_other_values(tmp_path: Path) -> None:
    """Setting one key of it does not bring back the class's own defaults of the others."""
    loaded = load_settings(Sample, write(tmp_path, f"{MINIMAL}prepared: {{trade: 1}}\n"), {})
    assert loaded.value.prepared == SlotSettings(orderbook=8, trade=1)
    assert loaded.sources["prepared.orderbook"] == "default"


def test_an_optional_section_exists_once_anything_of_it_is_set(tmp_path: Path) -> None:
    """None without any key; complete, or at fault, with one."""
    path = write(tmp_path, MINIMAL)
    assert load_settings(Sample, path, {}).value.other is None
    assert load_settings(Sample, path, {"KALSHI_DATA_OTHER__NAME": "y"}).value.other == Part("y")
    assert faults(Sample, path, {"KALSHI_DATA_OTHER__COUNT": "2"})[0].startswith(
        "other.name: missing"
    )


def test_checks_across_fields_are_faults_of_their_section(tmp_path: Path) -> None:
    """What `check` yields is listed with the section's path, for the common sections too."""
    assert faults(Sample, write(tmp_path, MINIMAL), {"KALSHI_DATA_PART__COUNT": "7"}) == (
        "part.count: seven is taken",
    )
    environ = {
        "KALSHI_DATA_API_KEY_ID": "k",
        "KALSHI_DATA_PRIVATE_KEY_FILE": "f",
        "KALSHI_DATA_ENVIRONMENT": "simulator",
        "KALSHI_DATA_BACKOFF_S_MIN": "600",
    }
    assert [fault.split(":")[0] for fault in faults(ExchangeSettings, None, environ)] == [
        "rest_url", "ws_url", "backoff_s_min",
    ]  # fmt: skip
    assert (
        "no room to move" in faults(SlotSettings, None, {"KALSHI_DATA_CONNECTIONS_MAX": "150"})[0]
    )


STORE = "store: {database: d, user: u, password: p}\n"


def test_a_secret_comes_from_a_file_and_follows_its_rotation(tmp_path: Path) -> None:
    """`password_file` is read without its last newline, and again at every reveal."""
    secret = tmp_path / "pw"
    secret.write_text("first\n")
    path = write(tmp_path, f"store: {{database: d, user: u, password_file: {secret}}}\n")
    loaded = load_settings(Stores, path, {})
    assert loaded.value.store.password.reveal() == "first"
    assert loaded.sources["store.password"] == f"file {secret} (named by file sample.yaml)"
    secret.write_text("second")
    assert loaded.value.store.password.reveal() == "second"
    secret.unlink()
    assert loaded.value.store.password.reveal() == "second"


def test_a_secret_and_its_file_in_one_layer_contradict(tmp_path: Path) -> None:
    """In one layer it is a fault; otherwise the higher layer wins, whichever form it uses."""
    secret = tmp_path / "pw"
    secret.write_text("filed")
    path = write(tmp_path, STORE)
    named = {"KALSHI_DATA_STORE__PASSWORD_FILE": str(secret)}
    assert load_settings(Stores, path, named).value.store.password.reveal() == "filed"
    both = write(
        tmp_path, f"store: {{database: d, user: u, password: p, password_file: {secret}}}\n"
    )
    assert "keep one of them" in faults(Stores, both, {})[0]
    below = write(tmp_path, "store: {database: d, user: u, password_file: /nowhere}\n")
    over = {"KALSHI_DATA_STORE__PASSWORD": "over"}
    assert load_settings(Stores, below, over).value.store.password.reveal() == "over"


def test_an_unreadable_secret_file_is_named(tmp_path: Path) -> None:
    """The path and the reason, never a content."""
    path = write(tmp_path, "store: {database: d, user: u, password_file: /nowhere/pw}\n")
    assert faults(Stores, path, {}) == (
        "store.password_file: /nowhere/pw cannot be read (No such file or directory); check path and owner",
    )
    assert "or name a file with store.password_file" in faults(Stores, None, {})[-1]


def test_secrets_do_not_show_themselves(tmp_path: Path) -> None:
    """Neither repr, str nor `describe` contains one."""
    loaded = load_settings(Stores, write(tmp_path, STORE.replace("p}", "hunter2}")), {})
    rows = {key: (value, source) for key, value, source in describe(loaded)}
    assert rows["store.password"] == ("***", "file sample.yaml")
    assert rows["store.port"] == ("5432", "default")
    assert "hunter2" not in f"{loaded!r} {rows!r} {loaded.value.store.password}"
    assert Secret("a") == Secret("a") != Secret("b")


def test_lists_of_sections_are_read_and_described_by_position(tmp_path: Path) -> None:
    """A list of gatherers: every entry is complete or at fault under its own number."""
    path = write(
        tmp_path,
        STORE + "gatherers:\n"
        "  - {zone: a, store: {database: d, user: u, password: p, port: 1}}\n"
        "  - {zone: b, store: {database: d, user: u, prot: 2}}\n",
    )
    assert faults(Stores, path, {})[0].startswith("gatherers.1.store.password: missing")
    assert any(
        fault.startswith("gatherers.1.store.prot: unknown") for fault in faults(Stores, path, {})
    )
    path.write_text(path.read_text().replace("prot: 2", "port: 2"))
    loaded = load_settings(Stores, path, {"KALSHI_DATA_GATHERERS__1__STORE__PASSWORD": "q"})
    assert [g.store.port for g in loaded.value.gatherers] == [1, 2]
    assert loaded.value.gatherers[1].store.password.reveal() == "q"
    keys = [key for key, _, _ in describe(loaded)]
    assert "gatherers.1.store.password" in keys
    assert set(keys) <= loaded.sources.keys()


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("zone: [", "no valid YAML"),
        ("zone: a\nzone: b\n", "stands twice"),
        ("- a\n", "mapping of sections"),
        ("part: x\nzone: a\n", "part"),
        ("zone: {a: b}\npart: {name: x}\n", "zone"),
        ("zone: a\npart: {name: x}\nprepared: 5\n", "prepared: unknown key"),
    ],
)
def test_a_file_of_the_wrong_shape_is_refused(tmp_path: Path, text: str, word: str) -> None:
    """Broken YAML, a key written twice, a list at the top, a scalar for a section and a section for a scalar."""
    assert any(word in fault for fault in faults(Sample, write(tmp_path, text), {}))


def test_a_file_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    """And the other faults are still listed."""
    found = faults(Sample, tmp_path / "none.yaml", {})
    assert "cannot be read (No such file or directory)" in found[0]
    assert len(found) == 3


def test_dotenv_serves_a_laptop_below_the_real_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.env` of the working directory feeds settings and references; a real variable wins."""
    (tmp_path / ".env").write_text(
        "NAME=n\nKALSHI_DATA_ZONE=low\nKALSHI_DATA_PART__COUNT=4\nQUOTED='1 2'\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("KALSHI_DATA_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KALSHI_DATA_ZONE", "high")
    loaded = load_settings(Sample, write(tmp_path, "part: {name: '${NAME}-${QUOTED}'}\n"))
    assert loaded.value == Sample("high", Part("n-1 2", count=4))
    assert loaded.sources["part.count"] == ".env KALSHI_DATA_PART__COUNT"


def test_globs_of_the_capture_filter(tmp_path: Path) -> None:
    """The shape the committed files use."""
    path = write(tmp_path, "ticker_include: ['KX*', 'FED-*']\ncombos: true\n")
    expected = CaptureSettings(ticker_include=("KX*", "FED-*"), combos=True)
    assert load_settings(CaptureSettings, path, {}).value == expected


def test_a_plain_text_may_stand_in_a_file_beside_its_secret(tmp_path: Path) -> None:
    """`user_file` as `password_file`: shown, its source named, read again; both ways in one layer, or a lost file, is a fault."""
    (tmp_path / "username").write_text("kd_writer\n")
    (tmp_path / "password").write_text("p\n")
    files = f"user_file: {tmp_path}/username, password_file: {tmp_path}/password"
    path = write(tmp_path, f"store: {{database: d, {files}}}\n")
    loaded = load_settings(Stores, path, {})
    store = loaded.value.store
    assert ("store.user", "kd_writer", f"file {tmp_path}/username (named by file sample.yaml)") in (
        describe(loaded)
    )
    (tmp_path / "username").write_text("kd_other\n")
    asked = store.target().ask_user
    assert asked is not None and (store.user, asked()) == ("kd_writer", "kd_other")
    (tmp_path / "username").unlink()
    assert asked() == "kd_writer"
    assert "username cannot be read" in faults(Stores, path, {})[0]
    over = load_settings(Stores, path, {"KALSHI_DATA_STORE__USER": "mine"}).value.store
    assert over.target().login()["user"] == "mine"
    path = write(tmp_path, f"store: {{database: d, user: u, {files}}}\n")
    assert "store.user: given together with store.user_file" in faults(Stores, path, {})[0]
    path = write(tmp_path, "store: {database: d, password: p}\n")
    assert "or name a file with store.user_file" in faults(Stores, path, {})[0]


def test_authorities_without_verification_are_a_mistake(tmp_path: Path) -> None:
    """Whoever names a bundle means it to be used."""
    path = write(tmp_path, "store: {database: d, user: u, password: p, tls_ca_file: ca.pem}\n")
    assert faults(Stores, path, {}) == (
        "store.tls_ca_file: is only read with tls: verify-full, not prefer",
    )
