"""`kalshi-data doctor`: whom to ask comes from the command line or a file; the report goes to standard output."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from libs.exchange.environments import Endpoints, resolve_endpoints
from libs.exchange.errors import EndpointInvalid
from libs.marketdata.units import format_rfc3339
from libs.runtime.clock import Clock, SystemClock
from libs.runtime.errors import ConfigInvalid
from services.doctor.cluster import command as cluster
from services.doctor.examine import examine
from services.doctor.findings import EXIT_USAGE, Finding, exit_status
from services.doctor.settings import DoctorSettings, Plan, read_settings
from services.doctor.show import console, show_json, show_table
from services.doctor.watching import waiting_shown, without_log_lines

GIVEN = {
    "environment": "exchange.environment",
    "rest_url": "exchange.rest_url",
    "ws_url": "exchange.ws_url",
    "api_key_id": "exchange.api_key_id",
    "private_key_file": "exchange.private_key_file",
}
"""Words of the command line -> the settings they stand for."""


def main(argv: Sequence[str], clock: Clock | None = None) -> int:
    """Parse, ask, print.

    Returns:
        0 when every check is ok or a warning (or was skipped), 1 when one fails, 2 for wrong usage.
    """
    arguments = _parser().parse_args(argv)
    clock = clock or SystemClock()
    if arguments.cluster or arguments.bucket:
        return cluster.run(arguments, clock)
    try:
        settings, plan = read_settings(arguments.config, _given(arguments))
        exchange = settings.exchange
        ends = resolve_endpoints(exchange.environment, exchange.rest_url, exchange.ws_url)
    except (ConfigInvalid, EndpointInvalid) as error:
        sys.stderr.write("doctor: whom to ask is not clear:\n")
        sys.stderr.writelines(f"  {fault}\n" for fault in error.faults)
        sys.stderr.write(
            "  (--config FILE, or --environment, --api-key-id and --private-key-file)\n"
        )
        return EXIT_USAGE
    try:
        with without_log_lines():
            return exit_status(_report(arguments, ends, settings, plan, clock))
    except KeyboardInterrupt:
        return 1


def _report(
    arguments: argparse.Namespace,
    ends: Endpoints,
    settings: DoctorSettings,
    plan: Plan,
    clock: Clock,
) -> list[Finding]:
    """Examine, showing what is still waited for where somebody looks; then print."""
    out, began = console(), clock.monotonic()
    with waiting_shown(out, "asking the exchange", is_json=arguments.json) as running:
        findings = asyncio.run(
            examine(
                ends,
                settings,
                plan,
                clock,
                arguments.timeout,
                quick=arguments.quick,
                running=running,
            )
        )
    seconds = clock.monotonic() - began
    if arguments.json:
        asked = {
            "environment": ends.environment,
            "rest_url": ends.rest_url,
            "ws_url": ends.ws_url,
        }
        show_json(asked, findings, seconds, format_rfc3339(clock.now()))
    else:
        show_table(out, ends.environment, findings, seconds)
    return findings


def _given(arguments: argparse.Namespace) -> dict[str, str]:
    return {
        key: value for word, key in GIVEN.items() if (value := getattr(arguments, word)) is not None
    }


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 3_600:
        raise argparse.ArgumentTypeError("must be above 0, and at most 3600 seconds")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kalshi-data doctor",
        description="Ask an exchange, reading only, whether capturing from it will work: key, clock, budget, websocket,"
        " channels, price orientation. With --cluster: ask an installed release whether its parts are there and fit"
        " together. Exit status: 0 ok or warnings, 1 something fails, 2 wrong usage.",
    )
    _add_cluster(parser)
    parser.add_argument(
        "--config",
        type=Path,
        default=os.environ.get("KALSHI_DATA_CONFIG"),
        help="a gatherer's YAML file, with --cluster doctor.yaml; default: KALSHI_DATA_CONFIG, else the words below and the"
        " environment",
    )
    parser.add_argument(
        "--environment", choices=("prod", "demo", "simulator"), help="default: prod"
    )
    parser.add_argument("--api-key-id", metavar="ID", help="the key's id, as the exchange shows it")
    parser.add_argument("--private-key-file", metavar="FILE", help="the key's PEM file")
    parser.add_argument("--rest-url", metavar="URL", help="instead of the environment's own")
    parser.add_argument("--ws-url", metavar="URL", help="instead of the environment's own")
    parser.add_argument("--quick", action="store_true", help="wait for no ping, listen shorter")
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="for all of it; default 60",
    )
    parser.add_argument("--json", action="store_true", help="as JSON instead of a table")
    return parser


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    """The words for a release instead of an exchange."""
    group = parser.add_argument_group("a release on Kubernetes")
    group.add_argument(
        "--cluster",
        action="store_true",
        help="databases and their levels, services, keys, clocks, connections, archive, policies, storage class, nodes",
    )
    group.add_argument(
        "--kubeconfig",
        default="",
        metavar="FILE",
        help="for nodes and storage class; default: the pod's account, else what kubectl takes",
    )
    group.add_argument(
        "--bucket",
        default="",
        metavar="ROOT",
        help="write, read, list and remove an object below s3://BUCKET/PREFIX (or a folder), as AWS's clients would from here",
    )
    group.add_argument("--endpoint", default="", metavar="URL", help="of an S3 server of one's own")
    for name in ("--access-key-id-file", "--secret-access-key-file"):
        group.add_argument(
            name, default="", metavar="FILE", help="default: the identity found here"
        )
