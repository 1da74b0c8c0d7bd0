"""`kalshi-data doctor --cluster` and `--bucket`: whom to ask comes from doctor.yaml; `helm test` runs it in a pod."""

import argparse
import asyncio
import sys
from pathlib import Path

from libs.marketdata.units import format_rfc3339
from libs.runtime.clock import Clock
from libs.runtime.errors import ConfigInvalid
from libs.runtime.settings import load_settings
from services.doctor.cluster.evidence import Evidence
from services.doctor.cluster.settings import ClusterSettings, DoctorFile
from services.doctor.findings import EXIT_USAGE, Finding, exit_status
from services.doctor.runner import Check, run_checks
from services.doctor.show import console, show_json, show_table
from services.doctor.watching import Running, waiting_shown, without_log_lines


def run(arguments: argparse.Namespace, clock: Clock) -> int:
    """Ask and print.

    Returns:
        0 when every check is ok or a warning (or was skipped), 1 when one fails, 2 for a file that is not usable.
    """
    settings: ClusterSettings | None = None
    if arguments.cluster:
        try:
            settings = read_settings(arguments.config)
        except ConfigInvalid as error:
            sys.stderr.write("doctor: which release is not clear (--config doctor.yaml):\n")
            sys.stderr.writelines(f"  {fault}\n" for fault in error.faults)
            return EXIT_USAGE
    try:
        with without_log_lines():
            return exit_status(_report(arguments, settings, clock))
    except KeyboardInterrupt:
        return 1


def read_settings(config: Path | None) -> ClusterSettings:
    """Read doctor.yaml. Raises ConfigInvalid."""
    return load_settings(DoctorFile, config).value.cluster


def _report(
    arguments: argparse.Namespace, settings: ClusterSettings | None, clock: Clock
) -> list[Finding]:
    out, began = console(), clock.monotonic()
    with waiting_shown(out, "asking the release", is_json=arguments.json) as running:
        findings = asyncio.run(_examine(arguments, settings, clock, running))
    seconds = clock.monotonic() - began
    asked = {"bucket": arguments.bucket} if arguments.bucket else {}
    if settings is not None:
        zones = [zone.zone for zone in settings.zones]
        asked = {"namespace": settings.namespace, "zones": ", ".join(zones), **asked}
    if arguments.json:
        show_json(asked, findings, seconds, format_rfc3339(clock.now()))
    else:
        show_table(
            out, ", ".join(f"{key} {value}" for key, value in asked.items()), findings, seconds
        )
    return findings


async def _examine(
    arguments: argparse.Namespace,
    settings: ClusterSettings | None,
    clock: Clock,
    running: Running,
) -> list[Finding]:
    findings: list[Finding] = []
    if settings is not None:
        from services.doctor.cluster.examine import examine_cluster

        evidence = Evidence(settings, clock, arguments.kubeconfig)
        findings += await examine_cluster(evidence, arguments.timeout, running)
    if arguments.bucket:
        # An S3 client takes a second to load, and nothing else here needs one.
        from services.doctor.cluster.look_bucket import CHECK, Bucket, check_bucket

        asked = Bucket(
            arguments.bucket,
            arguments.endpoint,
            arguments.access_key_id_file,
            arguments.secret_access_key_file,
        )

        async def check() -> list[Finding]:
            return list(await check_bucket(asked, clock.now()))

        bucket = Check(CHECK, check, timeout_s=arguments.timeout)
        findings += await run_checks([bucket], arguments.timeout, running)
    return findings
