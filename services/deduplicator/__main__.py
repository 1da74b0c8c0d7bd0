"""python -m services.deduplicator --config FILE."""

from libs.runtime.sections import DEDUPLICATOR_FILE
from libs.runtime.service import service_main
from services.deduplicator.service import run
from services.deduplicator.settings import Settings

if __name__ == "__main__":
    service_main("deduplicator", Settings, run, foreign=DEDUPLICATOR_FILE)
