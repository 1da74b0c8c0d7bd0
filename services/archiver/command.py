"""`kalshi-data archive list|verify|export|import`: look at an archive, prove it, write it again, bring production back."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from libs.archive.catalogue import Selection
from libs.archive.errors import ArchiveError
from libs.archive.keys import BIGINT_MAX, BIGINT_MIN
from libs.archive.objects import ObjectStore
from libs.marketdata.tables import GATHERER_TABLES
from libs.runtime.clock import SystemClock
from libs.runtime.errors import ConfigInvalid
from libs.runtime.last_run import last_run_config
from libs.runtime.sections import DEDUPLICATOR_FILE
from libs.runtime.settings import load_settings
from libs.store.errors import StoreError
from services.archiver.command_export import export_again
from services.archiver.command_import import import_archive, import_superseded
from services.archiver.command_read import list_windows, verify
from services.archiver.command_show import Output, moment_of
from services.archiver.settings import ArchiveSettings, Settings, storage_options

EXIT_OK, EXIT_FAULT, EXIT_USAGE = 0, 1, 2


def main(argv: Sequence[str]) -> int:
    """Parse and run.

    Returns:
        0 when all is well, 1 on a fault or when what is needed is away, 2 for wrong usage or configuration.
    """
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except ConfigInvalid as error:
        sys.stderr.write("archive: the configuration is not usable (--config FILE, or --root):\n")
        sys.stderr.writelines(f"  {fault}\n" for fault in error.faults)
        return EXIT_USAGE
    except (ArchiveError, StoreError) as error:
        sys.stderr.write(f"archive {arguments.action}: {error}\n")
        return EXIT_FAULT
    except KeyboardInterrupt:
        return EXIT_FAULT


def _run(arguments: argparse.Namespace) -> int:
    out, selection = Output(is_json=arguments.json), _selection(arguments)
    if arguments.action in ("list", "verify"):
        store, work_dir = _store(arguments)
        if arguments.action == "list":
            return list_windows(store, selection, out, limit=arguments.limit)
        return verify(store, selection, out, SystemClock(), work_dir)
    settings = _settings(arguments)
    own = settings.archiver
    store = ObjectStore(own.root, storage_options(own.s3))
    if arguments.action == "export":
        target = ObjectStore(str(arguments.to)) if arguments.to else None
        return asyncio.run(export_again(settings, store, selection, target, out))
    if arguments.superseded:
        return asyncio.run(import_superseded(settings, store, selection, out))
    return asyncio.run(import_archive(settings, store, selection.start, out))


def _selection(arguments: argparse.Namespace) -> Selection:
    tables = tuple(getattr(arguments, "table", None) or ())
    start, end = getattr(arguments, "start", None), getattr(arguments, "end", None)
    return Selection(
        tables, BIGINT_MIN if start is None else start, BIGINT_MAX if end is None else end
    )


def _store(arguments: argparse.Namespace) -> tuple[ObjectStore, str]:
    """The archive that --root names, or the configuration; production is not asked, it may be lost."""
    config = _config(arguments)
    if config is None and arguments.root:
        return ObjectStore(arguments.root), ""
    own = load_settings(ArchiveSettings, config, foreign=DEDUPLICATOR_FILE).value.archiver
    return ObjectStore(arguments.root or own.root, storage_options(own.s3)), own.work_dir


def _settings(arguments: argparse.Namespace) -> Settings:
    settings = load_settings(Settings, _config(arguments), foreign=DEDUPLICATOR_FILE).value
    if arguments.root:
        return replace(settings, archiver=replace(settings.archiver, root=arguments.root))
    return settings


def _config(arguments: argparse.Namespace) -> Path | None:
    if arguments.config is not None:
        return Path(arguments.config)
    if arguments.root and arguments.action in ("list", "verify"):
        return None
    return last_run_config()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kalshi-data archive", description=__doc__)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    summaries = {
        "list": "windows by table and time, with totals",
        "verify": "prove a bucket from its manifests alone; exit status 1 on any fault",
        "export": "write recorded windows again and compare them byte for byte",
        "import": "bring a lost production back from the archive",
    }
    made = {name: actions.add_parser(name, help=text, description=text) for name, text in summaries.items()}  # fmt: skip
    for action in made.values():
        _add_place(action)
    for name in ("list", "verify", "export"):
        _add_part(made[name])
    made["list"].add_argument(
        "--limit",
        type=int,
        default=50,
        metavar="N",
        help="newest windows shown; 0: all; default 50",
    )
    made["export"].add_argument(
        "--to", type=Path, metavar="FOLDER",
        help="write there; without it: only objects that the archive misses are put into it",
    )  # fmt: skip
    made["import"].add_argument(
        "--from", dest="start", type=moment_of, metavar="TIME",
        help="load only windows from this UTC day on; older ones are recorded as archived and dropped",
    )  # fmt: skip
    made["import"].add_argument(
        "--superseded", action="store_true",
        help="merge rows of objects that were set aside into the production that is there",
    )  # fmt: skip
    return parser


def _add_place(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--config", type=Path, default=os.environ.get("KALSHI_DATA_CONFIG"), metavar="FILE",
        help="the deduplicator's YAML file; default: KALSHI_DATA_CONFIG, else that of the last local run",
    )  # fmt: skip
    action.add_argument(
        "--root", metavar="PATH|s3://...", help="the archive, instead of the file's"
    )
    action.add_argument("--json", action="store_true", help="one JSON document instead of tables")


def _add_part(action: argparse.ArgumentParser) -> None:
    action.add_argument(
        "--table", action="append", choices=sorted(GATHERER_TABLES), metavar="TABLE",
        help="only this table; may be given again",
    )  # fmt: skip
    action.add_argument(
        "--from", dest="start", type=moment_of, metavar="TIME",
        help="only windows that end after this time, e.g. 2026-11-21 or 2026-11-21T14:00 (UTC)",
    )  # fmt: skip
    action.add_argument(
        "--until", dest="end", type=moment_of, metavar="TIME",
        help="only windows that begin before this time",
    )  # fmt: skip
