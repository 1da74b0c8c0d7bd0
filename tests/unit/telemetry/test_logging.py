import json
import logging as stdlib
from collections.abc import Callable, Iterator

import pytest

from libs.telemetry import logging


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    root = stdlib.getLogger()
    before = root.handlers[:], root.level
    yield lambda: capsys.readouterr().out
    root.handlers[:], level = before
    root.setLevel(level)


def test_a_json_line_is_one_object_with_bound_facts_first(out: Callable[[], str]) -> None:
    """Time, level, event, service, zone, then the facts; what JSON lacks is its text."""
    logging.configure("json", "info", "poller", "a")
    log = logging.get_logger("room", slot="orderbook/0").bind(epoch=3)
    log.info("batch_committed", rows=5000, lane=ValueError("x"))
    line = json.loads(out())
    assert list(line)[:5] == ["time", "level", "event", "service", "zone"]
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info", "event": "batch_committed", "service": "poller", "zone": "a", "logger": "room",
        "slot": "orderbook/0", "epoch": 3, "rows": 5000, "lane": "x",
    }  # fmt: skip


def test_a_text_line_is_for_eyes(out: Callable[[], str]) -> None:
    """Values with blanks are quoted, and stay on one line."""
    logging.configure("text", "info", "poller", "")
    logging.get_logger("room").warning("database_away", reason="no route\nto host", tries=2)
    line = out()
    assert line.count("\n") == 1
    expected = 'WARNING database_away service=poller reason="no route\\nto host" tries=2\n'
    assert line[13:] == expected


def test_the_level_is_respected(out: Callable[[], str]) -> None:
    """Below the level nothing is written; other libraries speak from warnings on."""
    logging.configure("json", "info", "x", "")
    logging.get_logger("room").debug("detail")
    stdlib.getLogger("aiohttp.access").info("GET /")
    stdlib.getLogger("asyncio").warning("slow %s", "callback")
    line = json.loads(out())
    assert (line["event"], line["message"]) == ("library_message", "slow callback")


def test_a_fact_cannot_overwrite_the_line(out: Callable[[], str]) -> None:
    """A fact named like a field of the line gets an underscore, and nothing is lost."""
    logging.configure("json", "info", "x", "")
    logging.get_logger("room").info("moved", service="y", level=2)
    line = json.loads(out())
    assert (line["service"], line["service_"], line["level_"]) == ("x", "y", 2)


def test_an_exception_has_its_traceback_in_the_line(out: Callable[[], str]) -> None:
    """One line still."""
    logging.configure("json", "info", "x", "")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.get_logger("room").exception("service_failed", status=1)
    line = json.loads(out())
    assert line["level"] == "error"
    assert line["traceback"].endswith("ValueError: broken")
