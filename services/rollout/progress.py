"""How far a rollout is, and what is said of it where it stops: who is new, how to go back and how to go on."""

from dataclasses import dataclass, field

from services.rollout.plan import Start, Step
from services.rollout.words import Wanted


@dataclass(slots=True)
class Progress:
    """How far it is, for whoever is told at the end.

    Attributes:
        released: zones of the newest upgrade, None: all. begun: whether an upgrade was sent at all.
    """

    zones: list[str] = field(default_factory=list)
    start: Start = field(default_factory=lambda: Start(None, Step(()), None))
    released: tuple[str, ...] | None = ()
    begun: bool = False


def advice(wanted: Wanted, progress: Progress) -> list[str]:
    """Say which zones are new and which are old, how to go back and how to go on."""
    new = set(progress.zones if progress.released is None else progress.released)
    lines = []
    if not progress.begun:
        return ["nothing was changed"]
    lines.append(f"new: {', '.join(zone for zone in progress.zones if zone in new) or 'no zone'}")
    lines.append(
        f"old: {', '.join(zone for zone in progress.zones if zone not in new) or 'no zone'}"
    )
    back = progress.start.goes_back_to
    where = " ".join(wanted.common_helm)
    to = (
        f"helm rollback {wanted.release} {back} {where}".rstrip()
        if back
        else "helm history names it"
    )
    lines.append(f"to go back: {to}")
    lines.append(
        "  (numbers of connectors go back too; after kubectl scale Helm 4 wants --force-conflicts)"
    )
    lines.append(
        "  (where database.image became a newer TimescaleDB, keep that image: helm upgrade with the former chart and values"
        " and the newer image, for an older one has no library for the updated extension)"
    )
    lines.append(
        "to go on: run the same command again; zones that are not released stay as they are"
    )
    return lines
