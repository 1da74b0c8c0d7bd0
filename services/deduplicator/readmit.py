"""The operator's command that re-admits a quarantined gatherer.

python -m services.deduplicator.readmit --config FILE ZONE [--skip-unsound]
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from libs.runtime.last_run import last_run_config
from libs.runtime.sections import DEDUPLICATOR_FILE
from libs.runtime.settings import ConfigInvalid, load_settings
from libs.store.errors import StoreError
from libs.store.readmission import Readmission, readmit
from services.deduplicator.settings import Settings


async def readmit_zone(settings: Settings, zone: str, *, skip_unsound: bool) -> Readmission:
    """Re-admit a zone by its name in the configuration.

    Raises:
        KeyError: no such zone.
        NotQuarantined, StoreUnavailable: as libs.store.readmission.readmit.
    """
    sources = {source.zone: source for source in settings.gatherers}
    target = sources[zone].store.target()
    return await readmit(target, settings.production.target(), skip_unsound=skip_unsound)


def main(argv: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="kalshi-data readmit", description="Re-admit a quarantined gatherer."
    )
    parser.add_argument("zone")
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("KALSHI_DATA_CONFIG"),
        help="the deduplicator's YAML file; default: KALSHI_DATA_CONFIG, else that of the last local run",
    )
    parser.add_argument(
        "--skip-unsound", action="store_true", help="give up the batch whose count or hash is wrong"
    )
    arguments = parser.parse_args(argv)
    config = arguments.config or last_run_config()
    try:
        settings = load_settings(Settings, config, foreign=DEDUPLICATOR_FILE).value
        done = asyncio.run(
            readmit_zone(settings, arguments.zone, skip_unsound=arguments.skip_unsound)
        )
    except ConfigInvalid as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyError:
        sys.stderr.write(f"readmit: no zone {arguments.zone} in the configuration\n")
        return 2
    except StoreError as error:
        sys.stderr.write(f"readmit: {error}\n")
        return 1
    for lane, (merged, given_up) in done.stepped_over.items():
        sys.stdout.write(f"lane {lane}: batches {merged + 1} to {given_up} given up\n")
    sys.stdout.write(f"zone {arguments.zone} is re-admitted as gatherer {done.gatherer}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
