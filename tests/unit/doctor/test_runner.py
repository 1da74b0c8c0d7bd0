import asyncio
from collections.abc import Awaitable, Callable, Sequence

from services.doctor.findings import Finding, exit_status, fail, ok, skipped, warn
from services.doctor.runner import Check, run_checks

Run = Callable[[], Awaitable[Sequence[Finding]]]


def gives(*findings: Finding) -> Run:
    """A check that has found."""

    async def run() -> Sequence[Finding]:
        return findings

    return run


async def forever() -> Sequence[Finding]:
    """A check that hangs."""
    await asyncio.Event().wait()
    raise AssertionError


async def test_findings_come_in_the_order_of_the_list() -> None:
    """Whichever ends first."""
    first = asyncio.Event()

    async def late() -> Sequence[Finding]:
        await first.wait()
        return [ok("a", "late")]

    async def early() -> Sequence[Finding]:
        first.set()
        return [ok("b", "early")]

    found = await run_checks([Check("a", late), Check("b", early)], 5.0)
    assert [finding.found for finding in found] == ["late", "early"]


async def test_what_needs_a_failed_check_is_skipped_and_the_rest_goes_on() -> None:
    """Also what needs the skipped one; a warning is good enough."""
    checks = [
        Check("a", gives(fail("a", "no", "do"))),
        Check("b", gives(ok("b", "yes")), needs=("a",)),
        Check("c", gives(ok("c", "yes")), needs=("b",)),
        Check("d", gives(warn("d", "hm", "do"))),
        Check("e", gives(ok("e", "yes")), needs=("d",)),
        Check("f", gives(ok("f", "yes")), after=("a", "b")),
    ]
    found = {finding.check: finding for finding in await run_checks(checks, 5.0)}
    assert found["b"] == skipped("b", "needs: a")
    assert found["c"] == skipped("c", "needs: b")
    assert found["e"].state == "ok"
    assert found["f"].state == "ok"


async def test_a_check_has_its_own_time() -> None:
    """It fails alone."""
    checks = [Check("slow", forever, timeout_s=0.01), Check("b", gives(ok("b", "yes")))]
    found = await run_checks(checks, 5.0)
    assert [finding.state for finding in found] == ["fail", "ok"]
    assert found[0].found == "no result in 0.01 s"


async def test_all_checks_share_one_time() -> None:
    """What is unfinished then fails, what is finished is kept."""
    checks = [Check("slow", forever), Check("b", gives(ok("b", "yes")))]
    found = await run_checks(checks, 0.05)
    assert [finding.state for finding in found] == ["fail", "ok"]
    assert "--timeout" in found[0].advice


async def test_a_check_that_breaks_is_a_finding() -> None:
    """Its error is named, and nothing else stops."""

    async def broken() -> Sequence[Finding]:
        raise KeyError("spans")

    found = await run_checks([Check("a", broken), Check("b", gives(ok("b", "y")), needs=("a",))], 5)
    assert found[0].state == "fail"
    assert "KeyError: 'spans'" in found[0].found
    assert found[1] == skipped("b", "needs: a")


async def test_who_watches_is_told_what_is_waited_for() -> None:
    """All names at first, fewer later."""
    told: list[list[str]] = []
    hold = asyncio.Event()

    async def held() -> Sequence[Finding]:
        await hold.wait()
        return [ok("b", "yes")]

    def running(names: Sequence[str]) -> None:
        told.append(list(names))
        if names == ["b"]:
            hold.set()

    await run_checks([Check("a", gives(ok("a", "yes"))), Check("b", held)], 5.0, running)
    assert told == [["a", "b"], ["b"]]


def test_only_a_fail_is_a_failure() -> None:
    """A warning does not stop a rollout."""
    assert exit_status([ok("a", ""), warn("b", "", "x"), skipped("c", "")]) == 0
    assert exit_status([ok("a", ""), fail("b", "", "x")]) == 1
