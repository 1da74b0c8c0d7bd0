"""python -m services.simulator --config FILE."""

from libs.runtime import sections
from libs.runtime.service import service_main
from services.simulator.service import run
from services.simulator.settings import Settings


def main() -> None:
    """Run the simulator as a process."""
    service_main("simulator", Settings, run, foreign=sections.SIMULATOR_FILE)


if __name__ == "__main__":
    main()
