"""`python -m services.poller --config FILE`."""

from libs.runtime.sections import GATHERER_FILE
from libs.runtime.service import service_main
from services.poller.service import run
from services.poller.settings import Settings

if __name__ == "__main__":
    service_main("poller", Settings, run, foreign=GATHERER_FILE)
