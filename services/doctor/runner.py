"""Runs checks: each as soon as what it needs is there, each with its own time-out, all within one.

A check that breaks is a finding like any other; what needs it is skipped, the rest goes on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from services.doctor.findings import Finding, fail, skipped


@dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        run: looks; its first finding tells whether the check as a whole succeeded (ok or warn).
        needs: checks that must have succeeded, else this one is skipped. after: checks it only waits for.
        timeout_s: seconds it may take.
    """

    name: str
    run: Callable[[], Awaitable[Sequence[Finding]]]
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    timeout_s: float = 20.0


async def run_checks(
    checks: Sequence[Check],
    timeout_s: float,
    running: Callable[[Sequence[str]], None] = lambda _names: None,
) -> list[Finding]:
    """Run all of them and return their findings in the order of `checks`.

    running: told the names of what is not finished, whenever that changes.
    """
    tasks: dict[str, asyncio.Task[Sequence[Finding]]] = {}
    for check in checks:
        waits_for = {name: tasks[name] for name in (*check.needs, *check.after)}
        tasks[check.name] = asyncio.create_task(_run(check, waits_for), name=check.name)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    pending = set(tasks.values())
    try:
        while pending and (left := deadline - loop.time()) > 0:
            running([name for name, task in tasks.items() if task in pending])
            _, pending = await asyncio.wait(
                pending, timeout=left, return_when=asyncio.FIRST_COMPLETED
            )
    finally:
        unfinished = {name for name, task in tasks.items() if not task.done()}
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)
    return [
        finding
        for name, task in tasks.items()
        for finding in (
            [_out_of_time(name, timeout_s)] if name in unfinished else _result(name, task)
        )
    ]


async def _run(
    check: Check, waits_for: Mapping[str, asyncio.Task[Sequence[Finding]]]
) -> Sequence[Finding]:
    if waits_for:
        await asyncio.wait(waits_for.values())
    for name in check.needs:
        if not _succeeded(waits_for[name]):
            return [skipped(check.name, f"needs: {name}")]
    try:
        async with asyncio.timeout(check.timeout_s):
            return await check.run()
    except TimeoutError:
        return [
            fail(
                check.name,
                f"no result in {check.timeout_s:g} s",
                "who is asked, or the way there, is very slow; run it again, from another network too",
            )
        ]


def _succeeded(task: asyncio.Task[Sequence[Finding]]) -> bool:
    if task.cancelled() or task.exception() is not None:
        return False
    found = task.result()
    return bool(found) and found[0].state in ("ok", "warn")


def _result(name: str, task: asyncio.Task[Sequence[Finding]]) -> Sequence[Finding]:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        return [
            fail(
                name,
                f"the check itself broke: {type(error).__name__}: {error}",
                "the answer was what nobody expected, or this is a mistake of ours: report it",
            )
        ]
    return task.result()


def _out_of_time(name: str, timeout_s: float) -> Finding:
    return fail(
        name, f"not finished within {timeout_s:g} s", "give it more time with --timeout SECONDS"
    )
