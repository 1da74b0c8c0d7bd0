"""`kalshi-data volume grow [RELEASE] --zone Z SIZE`: a bigger volume for a database that runs on."""

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
    parser = _parser()
    # The release may stand before the options and the size behind them: argparse takes one run of words.
    arguments, behind = parser.parse_known_args(argv)
    *release, size = arguments.words = [*arguments.words, *behind]
    if len(release) > 1 or any(word.startswith("-") for word in behind):
        parser.error(f"{' '.join(arguments.words)}: expected [RELEASE] SIZE")
    out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, markup=False, highlight=False)
    try:
        bytes_of(size)
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
        f"done. Set {where} to {size} in your values before the next upgrade, which would fail otherwise;"
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
    *release, size = arguments.words
    volume = await find_volume(tool, "".join(release), component, arguments.zone or "")
    await grow(tool, volume, size, clock, out.print, look_s)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kalshi-data volume",
        description="Grow the volume of a zone's database, or of the in-chart production, without a restart: the claim, then"
        " the StatefulSet made again around its running pod. Run again, it does what is left.",
    )
    verbs = parser.add_subparsers(metavar="grow", required=True)
    verb = verbs.add_parser(
        "grow",
        help="make a volume bigger; it never shrinks",
        usage="kalshi-data volume grow [RELEASE] SIZE (--zone ZONE | --production) [-n NAMESPACE] [--kube-context NAME]"
        " [--kubeconfig FILE]",
        allow_abbrev=False,
    )
    verb.add_argument(
        "words", nargs="+", metavar="SIZE", help="such as 400Gi; before it the release, where a namespace has several"
    )  # fmt: skip
    which = verb.add_mutually_exclusive_group(required=True)
    which.add_argument("--zone", metavar="ZONE", help="the zone whose database it is")
    which.add_argument("--production", action="store_true", help="the in-chart production's")
    verb.add_argument("-n", "--namespace", default="")
    verb.add_argument("--kube-context", default="", metavar="NAME")
    verb.add_argument("--kubeconfig", default="", metavar="FILE")
    return parser
