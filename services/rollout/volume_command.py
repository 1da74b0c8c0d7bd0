"""`kalshi-data volume grow RELEASE --zone Z SIZE`: a bigger volume for a database that runs on."""

import argparse
import asyncio
import sys
from collections.abc import Sequence

from rich.console import Console

from libs.runtime.clock import Clock, SystemClock
from services.rollout.errors import RolloutError, WordsWrong
from services.rollout.tools import Tool
from services.rollout.volume import LOOK_S, bytes_of, find_volume, grow

EXIT_OK, EXIT_STOPPED, EXIT_USAGE = 0, 1, 2
PRODUCTION = "production"
PIPE_WIDTH = 160


def main(argv: Sequence[str], clock: Clock | None = None, look_s: float = LOOK_S) -> int:
    """Run it; return 0 done, 1 stopped, 2 wrong words.

    Args:
        look_s: seconds between two looks at the claim.
    """
    arguments = _parser().parse_args(argv)
    out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False)
    try:
        bytes_of(arguments.size)
        asyncio.run(_grow(arguments, clock or SystemClock(), out, look_s))
    except WordsWrong as error:
        sys.stderr.write(f"volume: {error}\n")
        return EXIT_USAGE
    except RolloutError as error:
        out.print(f"stopped: {error}", style="bold red")
        return EXIT_STOPPED
    where = (
        "production.storage.size" if arguments.production else "the zone's database.storage.size"
    )
    out.print(
        f"done. Set {where} to {arguments.size} in your values before the next upgrade, which would fail otherwise;"
    )
    out.print("it also raises the limit above which connectors hold back (storage_bytes_max).")
    return EXIT_OK


async def _grow(arguments: argparse.Namespace, clock: Clock, out: Console, look_s: float) -> None:
    words = {
        "--namespace": arguments.namespace,
        "--kubeconfig": arguments.kubeconfig,
        "--context": arguments.kube_context,
    }
    common = [part for word, value in words.items() if value for part in (word, value)]
    tool = Tool("kubectl", tuple(common))
    component = PRODUCTION if arguments.production else "database"
    volume = await find_volume(tool, arguments.release, component, arguments.zone or "")
    await grow(tool, volume, arguments.size, clock, out.print, look_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kalshi-data volume",
        description="Grow the volume of a zone's database, or of the in-chart production, without a restart: the claim, then"
        " the StatefulSet made again around its running pod. Run again, it does what is left.",
    )
    verbs = parser.add_subparsers(metavar="grow", required=True)
    verb = verbs.add_parser(
        "grow", help="make a volume bigger; it never shrinks", allow_abbrev=False
    )
    verb.add_argument("release", metavar="RELEASE")
    verb.add_argument("size", metavar="SIZE", help="such as 400Gi")
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("--zone", metavar="ZONE", help="the zone whose database it is")
    which.add_argument("--production", action="store_true", help="the in-chart production's")
    verb.add_argument("-n", "--namespace", default="")
    verb.add_argument("--kube-context", default="", metavar="NAME")
    verb.add_argument("--kubeconfig", default="", metavar="FILE")
    return parser
