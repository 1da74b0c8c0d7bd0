"""A seed is a whole world: run again it is the same to the last byte, in whatever process."""

import os
import subprocess
import sys
from pathlib import Path

from tests.simulation.plan import plan_of
from tests.simulation.trial import trace_of
from tests.simulation.world import run

ROOT = Path(__file__).parents[2]
SEED = 3
DIGEST = f"from tests.simulation.trial import digest_of_seed; print(digest_of_seed({SEED}))"


def test_the_same_seed_is_the_same_world() -> None:
    """Both journals and every committed batch of every zone, byte for byte."""
    first, second = (trace_of(run(plan_of(SEED))) for _ in range(2))
    assert len(first.stored) >= 9
    assert b'"kind":"fault"' in first.session
    assert first == second


def test_another_process_makes_the_same_world() -> None:
    """Nothing depends on hashes of texts, which differ from process to process."""
    digests = {
        subprocess.run(
            [sys.executable, "-c", DIGEST], cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 32
