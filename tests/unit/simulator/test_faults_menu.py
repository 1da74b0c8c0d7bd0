"""The fault menu as it is written: every kind reads back, and what cannot be is refused with its field and a way out."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from libs.marketdata.units import SECOND
from services.simulator.faults.chance_script import DEFAULT_KINDS, random_script
from services.simulator.faults.entries import (
    FaultInvalid,
    describe_menu,
    read_entry,
    write_entry,
)
from services.simulator.faults.menu import KINDS, Delay, Drop, On, RenameField, Stall
from services.simulator.faults.script import (
    ScriptInvalid,
    parse_script,
    read_script,
    script_of_journal,
    write_script,
)
from services.simulator.journal import MemoryJournal
from services.simulator.settings import SimulatorSettings
from services.simulator.simulation import Simulation

EXAMPLE = Path(__file__).parents[3] / "config" / "faults" / "example.yaml"
ENTRIES: list[dict[str, Any]] = [
    {"fault": "drop", "for_s": 5.0, "share": 0.25, "on": {"zone": "a", "channel": "trade"}},
    {"fault": "duplicate", "count_max": 3, "on": {"connection": 4}},
    {"fault": "delay", "delay_ms": 250, "for_s": 1.5, "on": {"key": "k"}},
    {"fault": "reorder", "places": 7},
    {"fault": "truncate", "at_s": 12.5},
    {"fault": "seq_gap", "by": 9, "on": {"channel": "orderbook_delta"}},
    {"fault": "stall", "for_s": 40.0, "pings": True, "lost": True},
    {"fault": "drip", "for_s": 20.0, "growth": 0.9},
    {"fault": "half_open", "on": {"connection": 1}},
    {"fault": "close", "code": 1011},
    {"fault": "reset", "on": {"zone": "b"}},
    {"fault": "refuse", "for_s": 3.0, "status": 503, "body": "empty"},
    {"fault": "auth_expiry", "for_s": 9.0, "on": {"key": "k"}},
    {"fault": "error", "code": 10, "on": {"channel": "trade"}},
    {"fault": "error", "code": 27, "count_max": 2},
    {"fault": "snapshot_storm", "rounds": 3},
    {"fault": "rename_field", "field": "delta_fp", "to": "delta", "for_s": 1.0},
    {"fault": "new_field", "field": "Clock", "value": "12"},
    {"fault": "unknown_type", "name": "ticker_v3", "count": 2},
    {"fault": "clock_step", "by_ms": -1500},
    {"fault": "clock_step", "by_ms": 90_000, "whose": "ours", "on": {"zone": "a"}},
    {"fault": "create_markets", "count": 100_000},
    {"fault": "rest", "for_s": 2.0, "status": 429, "share": 0.5, "path": "/markets"},
    {"fault": "maintenance", "for_s": 7200.0},
]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["fault"])
def test_every_kind_reads_back_as_it_was_written(entry: dict[str, Any]) -> None:
    """An entry is a fault and the fault is that entry; texts, as a form sends them, mean the same."""
    fault = read_entry(entry)
    assert write_entry(fault) == entry
    texts = {
        name: value if isinstance(value, dict) else str(value) for name, value in entry.items()
    }
    assert read_entry(texts) == fault


def test_the_menu_is_complete() -> None:
    """Every kind has an entry above, says what it does, and describes its fields."""
    menu = {item["fault"]: item for item in describe_menu()}
    assert menu.keys() == KINDS.keys() == {entry["fault"] for entry in ENTRIES}
    assert all(len(item["does"]) > 20 for item in menu.values())
    assert menu["rename_field"]["fields"][-1] == {"name": "to", "type": "str", "needed": True}
    assert {"name": "whose", "type": "choice", "choices": ["exchange", "ours"], "default": "exchange"} in (
        menu["clock_step"]["fields"]
    )  # fmt: skip
    assert menu["maintenance"]["on"] == []


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ([], ["expected a mapping"]),
        ({"fault": "drp"}, ["fault: no kind 'drp'; did you mean drop?"]),
        ({"at_s": 1}, ["fault: no kind None; choose one of"]),
        ({"fault": "drop", "shre": 1}, ["shre: unknown field; did you mean share?"]),
        ({"fault": "drop", "share": 1.5}, ["share: expected 0 to 1, got 1.5"]),
        ({"fault": "drop", "share": [1]}, ["share: expected one value"]),
        ({"fault": "drop", "on": "a"}, ["on: expected a mapping"]),
        ({"fault": "drop", "on": {"zon": "a"}}, ["on.zon: unknown field; did you mean zone?"]),
        ({"fault": "drop", "on": {"channel": "trades"}}, ["on.channel: no channel 'trades'; did you mean trade?"]),
        ({"fault": "delay", "delay_ms": "soon"}, ["delay_ms: expected a whole number, got 'soon'"]),
        ({"fault": "rename_field"}, ["field: missing", "to: missing"]),
        ({"fault": "rename_field", "field": "a", "to": "a"}, ["to: say the new name"]),
        ({"fault": "stall"}, ["for_s: say how many seconds stall lasts"]),
        ({"fault": "reset", "for_s": 2}, ["for_s: leave it out, reset happens once"]),
        ({"fault": "close", "code": 1006}, ["code: choose 1000, 1001"]),
        ({"fault": "close", "share": 0.5}, ["share: leave it out"]),
        ({"fault": "close", "on": {"channel": "trade"}}, ["on.channel: leave it out of close; only connection"]),
        ({"fault": "maintenance", "for_s": 1, "on": {"zone": "a"}}, ["on.zone: leave it out of maintenance; it hits everyone"]),
        ({"fault": "error", "code": 8}, ["code: choose 10 or 25"]),
        ({"fault": "error", "code": 26, "on": {"channel": "trade"}}, ["on.channel: leave it out"]),
        ({"fault": "error", "code": 27, "count_max": 10_001}, ["count_max: at most 10000 commands"]),
        ({"fault": "unknown_type", "count": 10_001}, ["count: expected 1 to 10000"]),
        ({"fault": "snapshot_storm", "rounds": 101}, ["rounds: expected 1 to 100"]),
        ({"fault": "seq_gap", "on": {"channel": "ticker"}}, ["on.channel: choose another"]),
        ({"fault": "refuse", "for_s": 1, "status": 404}, ["status: choose 429"]),
        ({"fault": "refuse", "for_s": 1, "body": "xml"}, ["body: expected one of html, empty, json"]),
        ({"fault": "rest", "for_s": 1, "body": "xml"}, ["body: choose one of json"]),
        ({"fault": "clock_step", "by_ms": 0}, ["by_ms: say how far"]),
        ({"fault": "clock_step", "by_ms": 5, "on": {"zone": "a"}}, ["on: leave it out"]),
        ({"fault": "unknown_type", "name": "no type"}, ["name: use letters"]),
    ],
)  # fmt: skip
def test_what_cannot_be_names_its_field_and_a_way_out(entry: object, says: list[str]) -> None:
    """Every fault of an entry is said, each with its field first."""
    with pytest.raises(FaultInvalid) as caught:
        read_entry(entry)
    assert len(caught.value.faults) == len(says)
    for line, beginning in zip(caught.value.faults, says, strict=True):
        assert line.startswith(beginning)


def test_on_says_whom() -> None:
    """What is named must fit, what is not named is no condition."""
    assert On().takes_line(7, "k", "a")
    assert On(zone="a", connection=7).takes_line(7, "k", "a")
    assert not On(zone="b").takes_line(7, "k", "a")
    assert not On(connection=8).takes_line(7, "k", "a")
    assert not On(key="other").takes_key("k", "a")
    assert On(channel="trade").takes_channel("trade")
    assert not On(channel="trade").takes_channel("")


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_script_is_a_file_in_the_order_of_its_times(tmp_path: Path, suffix: str) -> None:
    """YAML or JSON, bare or under `faults`; what comes first in time comes first."""
    entries = [{"fault": "drop", "at_s": 9.0}, {"fault": "delay", "at_s": 2.0, "delay_ms": 5}]
    file = tmp_path / f"script.{suffix}"
    file.write_text(
        json.dumps({"faults": entries}) if suffix == "json" else yaml.safe_dump(entries)
    )
    assert read_script(file) == [Delay(at_s=2.0, delay_ms=5), Drop(at_s=9.0)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("faults: [{fault: drop}, {fault: stall}, 7]", ["faults[1].for_s: say", "faults[2].expected"]),
        ("faults: 7", ["faults: expected a list"]),
        ("faults: [", ["while parsing"]),
    ],
)  # fmt: skip
def test_a_wrong_script_is_refused_with_every_place(
    tmp_path: Path, text: str, says: list[str]
) -> None:
    """File and place of each wrong entry are named."""
    file = tmp_path / "script.yaml"
    file.write_text(text)
    with pytest.raises(ScriptInvalid) as caught:
        read_script(file)
    assert len(caught.value.faults) == len(says)
    for line, beginning in zip(caught.value.faults, says, strict=True):
        assert line.startswith(f"simulator.faults_file: {file}: {beginning}")


def test_a_script_by_hand_needs_no_quotes(tmp_path: Path) -> None:
    """`on` is a key and no truth value, as YAML would have it; numbers, truth values and null are read by their field."""
    file = tmp_path / "script.yml"
    file.write_text(
        """
- fault: stall
  on: {zone: a, connection: 2}
  for_s: 1e1
  pings: true
- {fault: rename_field, field: yes, to: no, at_s: null}
"""
    )
    assert read_script(file) == [
        Stall(for_s=10.0, pings=True, on=On(zone="a", connection=2)),
        RenameField(field="yes", to="no"),
    ]


def test_the_example_shows_the_whole_menu() -> None:
    """The script that users start from has an entry of every kind, and a simulator carries all of it out."""
    settings = SimulatorSettings(markets=20, rate=50.0, faults_file=str(EXAMPLE))
    script = read_script(EXAMPLE)
    assert {fault.kind for fault in script} == set(KINDS)
    journal = MemoryJournal()
    now = 1_795_000_000 * SECOND
    simulation = Simulation(settings, MemoryJournal(), journal, now)
    while not simulation.advance(simulation.stage.epoch + 60 * SECOND):
        pass
    begun = [json.loads(line) for line in journal.lines if '"phase":"begin"' in line]
    assert [line["fault"] for line in begun] == [fault.kind for fault in script]


def test_a_missing_script_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    """The file's name stands in the message."""
    with pytest.raises(ScriptInvalid, match=r"gone\.yaml"):
        read_script(tmp_path / "gone.yaml")


def test_random_scripts_are_functions_of_their_seed() -> None:
    """The same seed gives the same faults, another one others; all kinds come, times ascend, all of it can be written."""
    script = random_script(7, 3_000, ("a", "b"), every_s=2.0)
    assert script == random_script(7, 3_000, ("a", "b"), every_s=2.0)
    assert script != random_script(8, 3_000, ("a", "b"), every_s=2.0)
    assert {fault.kind for fault in script} == set(DEFAULT_KINDS)
    times = [fault.at_s or 0.0 for fault in script]
    assert times == sorted(times)
    assert times[-1] < 3_000
    assert parse_script(write_script(script)) == script
    assert {fault.on.zone for fault in script} == {"", "a", "b"}


def test_random_scripts_of_chosen_kinds() -> None:
    """Only the kinds asked for, about as often as asked for; a longer script begins with the shorter one."""
    script = random_script(1, 1_000, kinds=("close", "clock_step"), every_s=10.0)
    assert {fault.kind for fault in script} == {"close", "clock_step"}
    assert 60 < len(script) < 150
    assert random_script(1, 500, kinds=("close", "clock_step"), every_s=10.0) == [
        fault for fault in script if (fault.at_s or 0.0) < 500
    ]


def test_a_journal_is_a_script_again() -> None:
    """Beginnings are entries; what was ended early lasts as long as it did; other lines are passed over."""
    entry = {"fault": "drop", "for_s": 60.0, "at_s": 3.0}
    lines = [
        {"kind": "opened", "at": 1},
        {"kind": "fault", "phase": "begin", "number": 1, "at": 10_000_000, "entry": entry},
        {"kind": "fault", "phase": "begin", "number": 2, "at": 11_000_000, "entry": {**entry, "at_s": 4.0}},
        {"kind": "fault", "phase": "hit", "number": 1, "at": 12_000_000},
        {"kind": "fault", "phase": "end", "number": 1, "at": 12_500_000, "early": True},
        {"kind": "fault", "phase": "end", "number": 2, "at": 71_000_000, "early": False},
    ]  # fmt: skip
    texts = [json.dumps(line, separators=(",", ":")) for line in lines]
    expected = [{**entry, "for_s": 2.5}, {**entry, "at_s": 4.0}]
    assert script_of_journal(texts) == expected
    assert script_of_journal([text.encode() for text in texts]) == expected
