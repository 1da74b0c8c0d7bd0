"""`python -m services.connector --config FILE`."""

from libs.runtime.sections import GATHERER_FILE
from libs.runtime.service import service_main
from services.connector.service import run
from services.connector.settings import Settings

if __name__ == "__main__":
    service_main("connector", Settings, run, foreign=GATHERER_FILE)
