"""python -m services.archiver --config FILE."""

from libs.runtime.sections import DEDUPLICATOR_FILE
from libs.runtime.service import service_main
from services.archiver.service import run
from services.archiver.settings import Settings

if __name__ == "__main__":
    service_main("archiver", Settings, run, foreign=DEDUPLICATOR_FILE)
