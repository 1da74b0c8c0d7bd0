"""`python -m services.registry --config FILE`."""

from libs.runtime.sections import GATHERER_FILE
from libs.runtime.service import service_main
from services.registry.service import run
from services.registry.settings import Settings

if __name__ == "__main__":
    service_main("registry", Settings, run, foreign=GATHERER_FILE)
