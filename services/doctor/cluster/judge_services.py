"""What the /health documents of a release's services tell: ready, of our version, let in by the exchange, archiving. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from libs.archive.trial import UNTRIED, WELL
from libs.marketdata.units import SECOND, format_rfc3339
from services.doctor.cluster.evidence import Archived, Document
from services.doctor.findings import Finding, fail, ok, skipped, warn

ARCHIVE: Final = "archive"
LATE_S: Final = 3 * 3_600
"""Windows are an hour by default; three without an object are no accident."""
BUCKET_ADVICE: Final = (
    "the identity needs s3:PutObject, s3:GetObject, s3:DeleteObject on the prefix and s3:ListBucket on the bucket, and where"
    " the bucket is encrypted with a key of KMS kms:GenerateDataKey and kms:Decrypt; check region and endpoint too"
)


def service_check(document: Document) -> str:
    """What the check of a service is called: `registry a`."""
    return f"{document.get('service', 'service')} {document.get('zone') or ''}".rstrip()


def judge_service(document: Document, own_version: str) -> Finding:
    """Whether it does its job, and is of the version that looks."""
    check, version = service_check(document), document.get("version")
    if not document.get("ready"):
        reason = document.get("reason") or "it does not say why"
        return fail(check, f"not ready: {reason}", "its log says more: kubectl logs")
    if version != own_version:
        return warn(
            check,
            f"ready, version {version}; this is {own_version}",
            "expected while its zone is held; otherwise: kalshi-data rollout",
        )
    return ok(check, f"ready, version {version}")


def exchange_check(zone: str) -> str:
    """What the check of a zone's key is called."""
    return f"exchange key {zone}"


def judge_exchange(zone: str, documents: Sequence[Document]) -> Finding:
    """Whether the exchange lets a zone in, as its services have it: by REST (the registry) and by websocket (connectors)."""
    check = exchange_check(zone)
    registry = _first(documents, "registry", zone)
    connector = _first(documents, "connector", zone)
    if registry is None or connector is None:
        return skipped(check, "needs: answers of the zone's registry and of a connector")
    rest: Mapping[str, Any] = registry.get("exchange") or {}
    connections = connector.get("connections") or 0
    said = f"{rest.get('requests', 0)} requests, {connections} connections of {connector.get('shard', 'a connector')}"
    if not registry.get("ready"):
        return warn(check, f"the registry is not ready: {said}", "see the registry's own line")
    if not connections and connector.get("slots"):
        advice = "see the connector's log; kalshi-data doctor with the zone's file in one of its pods asks the exchange itself"
        return fail(check, f"no websocket is open: {said}", advice)
    if rest.get("limited"):
        advice = "zones of one account share its budget: lower the read shares or give zones accounts of their own"
        return warn(
            check, f"accepted, yet refused {rest['limited']} times for too much: {said}", advice
        )
    return ok(check, f"accepted: {said}")


def judge_archive(documents: Sequence[Document], archived: Archived | None, now: int) -> Finding:
    """Whether the archiver may use its store, and writes objects: each is read back and compared before it counts.

    No object is due in a new release's first hour, so what counts until then is what the archiver tried at its start.
    """
    archiver = _first(documents, "archiver", "")
    if archiver is None:
        return skipped(ARCHIVE, "needs: an answer of the archiver")
    bucket = bucket_outcome(archiver)
    if bucket not in (UNTRIED, WELL):
        return fail(ARCHIVE, f"the archiver tried the bucket: {bucket}", BUCKET_ADVICE)
    error = archiver.get("error")
    if error:
        advice = "bucket, region, endpoint, and the identity of the ServiceAccount kalshi-data-archiver; then its log"
        return fail(ARCHIVE, f"the last round failed: {error}", advice)
    if bucket == UNTRIED:
        advice = (
            "ask again in a minute; if it stays so, the bucket does not answer: the archiver's log"
        )
        return warn(ARCHIVE, f"the bucket: {UNTRIED}", advice)
    if archived is None:
        return skipped(ARCHIVE, "needs: production")
    if archived.newest_at is None:
        return ok(ARCHIVE, f"the bucket: {WELL.removeprefix('ok: ')}; nothing was due yet")
    ago = (now - archived.newest_at) / SECOND
    found = f"{archived.objects} objects written and read back, the newest at {format_rfc3339(archived.newest_at)}"
    if ago > LATE_S:
        return warn(
            ARCHIVE, found, "windows close late, or nothing was merged: kalshi-data archive list"
        )
    return ok(ARCHIVE, found)


def bucket_outcome(archiver: Document) -> str:
    """What became of the archiver's trial of its store: UNTRIED, WELL or the error."""
    return str(archiver.get("bucket") or UNTRIED)


def _first(documents: Sequence[Document], service: str, zone: str) -> Document | None:
    for document in documents:
        if document.get("service") == service and (document.get("zone") or "") == zone:
            return document
    return None
