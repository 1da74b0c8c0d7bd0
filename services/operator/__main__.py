"""python -m services.operator --config FILE."""

from libs.runtime.service import service_main
from services.operator.service import run
from services.operator.settings import Settings

if __name__ == "__main__":
    service_main("operator", Settings, run)
