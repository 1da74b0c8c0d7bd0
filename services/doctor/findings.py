"""A finding: one line of the report. What is not ok always says what to do."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

State = Literal["ok", "warn", "fail", "skipped"]
EXIT_OK, EXIT_FAIL, EXIT_USAGE = 0, 1, 2


class Finding(NamedTuple):
    """What a check found; advice is empty only for ok and skipped."""

    check: str
    state: State
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(check, "ok", found)


def warn(check: str, found: str, advice: str) -> Finding:
    """Capturing works, yet something should be known or done."""
    return Finding(check, "warn", found, advice)


def fail(check: str, found: str, advice: str) -> Finding:
    """Capturing does not work, or what it stores could not be trusted."""
    return Finding(check, "fail", found, advice)


def skipped(check: str, why: str) -> Finding:
    """Not looked at."""
    return Finding(check, "skipped", why)


def count(findings: Iterable[Finding], state: State) -> int:
    """Count the findings of one state."""
    return sum(finding.state == state for finding in findings)


def exit_status(findings: Iterable[Finding]) -> int:
    """1 with any fail, else 0: a warning is no reason to stop a rollout."""
    return EXIT_FAIL if count(findings, "fail") else EXIT_OK
