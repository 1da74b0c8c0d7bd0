"""Be the simulated exchange: python -m services.simulator --config FILE [--replay FRAMES [--verbatim]]."""

import argparse
import os
import sys

from libs.runtime.sections import SIMULATOR_FILE
from libs.runtime.service import service_main
from services.simulator.service import run
from services.simulator.settings import Settings

REPLAY = "KALSHI_DATA_SIMULATOR__REPLAY__"


def replay_arguments(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Take --replay and --verbatim out of the arguments; return them as settings, and the other arguments."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--replay")
    parser.add_argument("--verbatim", action="store_true")
    found, rest = parser.parse_known_args(argv)
    settings = {f"{REPLAY}FILE": found.replay} if found.replay else {}
    return settings | ({f"{REPLAY}VERBATIM": "true"} if found.verbatim else {}), rest


def main() -> None:
    """Run the simulator as a process."""
    replay, sys.argv[1:] = replay_arguments(sys.argv[1:])
    os.environ.update(replay)
    service_main("simulator", Settings, run, foreign=SIMULATOR_FILE)


if __name__ == "__main__":
    main()
