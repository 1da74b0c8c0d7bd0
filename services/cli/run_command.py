"""`kalshi-data run SERVICE ...`: the same as `python -m services.SERVICE ...`."""

import argparse
import runpy
import sys

from services.cli.catalogue import SERVICES


def main(argv: list[str]) -> int:
    """Become the service: its own arguments follow its name, its exit status is ours."""
    parser = argparse.ArgumentParser(
        prog="kalshi-data run", add_help=not argv[:1] or argv[0][0] == "-"
    )
    parser.add_argument("service", choices=sorted(SERVICES))
    arguments, rest = parser.parse_known_args(argv[:1])[0], argv[1:]
    module = f"services.{arguments.service}"
    sys.argv = [f"kalshi-data run {arguments.service}", *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
