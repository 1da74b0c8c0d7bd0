"""`archive list` and `archive verify`: the bucket alone is asked."""

from typing import Any

from libs.archive.catalogue import Catalogue, Fault, Selection, read_catalogue
from libs.archive.keys import Window
from libs.archive.manifest import Manifest
from libs.archive.objects import ObjectStore
from libs.archive.trial import is_of_trial
from libs.archive.verification import verify_objects
from libs.runtime.clock import Clock
from services.archiver.command_show import Output, new_table, show_bytes, show_moment

EXIT_OK, EXIT_FAULT = 0, 1
FAULTS_SHOWN = 40
"""More of them on a screen hide the first; a document has all."""


def list_windows(store: ObjectStore, selection: Selection, out: Output, *, limit: int) -> int:
    """Print the windows of an archive and totals by table; 1 when manifests or names are at fault.

    Args:
        limit: how many windows are shown, the newest; 0: all. A document has all of them.
    """
    catalogue = _read(store, selection, out)
    windows = [_window_facts(*entry) for entry in catalogue.windows()]
    shown = sorted(windows, key=lambda w: (w["from"], w["table"]))[-limit if limit else None :]
    table = new_table(
        "Windows", "table", "from", "to", "rows", "bytes", "objects", "merges", "first row", "last row", texts=3
    )  # fmt: skip
    for one in shown:
        table.add_row(
            one["table"], show_moment(one["from"]), show_moment(one["to"]), f"{one['rows']:,}",
            show_bytes(one["bytes"]), str(one["objects"]), f"{one['merge_from']}..{one['merge_to']}",
            show_moment(one["time_min"]), show_moment(one["time_max"]),
        )  # fmt: skip
    if shown:
        out.table(table)
    if len(shown) < len(windows):
        out.say(f"the newest {len(shown)} of {len(windows)} windows; --limit 0 shows all")
    totals = _totals(windows)
    out.table(_totals_table(totals))
    _show_superseded(catalogue, out)
    show_faults(catalogue.faults, out)
    out.document(
        {
            "windows": windows, "tables": totals,
            "superseded": [note.was for _, note in catalogue.superseded],
            "faults": [_fault_facts(fault) for fault in catalogue.faults],
        }
    )  # fmt: skip
    return EXIT_FAULT if catalogue.faults else EXIT_OK


def verify(
    store: ObjectStore, selection: Selection, out: Output, clock: Clock, work_dir: str = ""
) -> int:
    """Prove an archive, or part of it, from its own bytes; print every fault; 1 when there is one."""
    began = clock.monotonic()
    catalogue = _read(store, selection, out)
    faults, objects, size = list(catalogue.faults), 0, 0
    if not catalogue.manifests and all(is_of_trial(name) for name in store.names()):
        faults.append(Fault(store.root, "archive", "nothing lies there"))
    total = len(catalogue.manifests) + len(catalogue.superseded)
    with out.progress("verifying") as step:
        for checked in verify_objects(store, catalogue, work_dir):
            objects, size = objects + 1, size + checked.bytes
            faults += checked.faults
            step(objects, total, checked.object)
    seconds = clock.monotonic() - began
    totals = _totals([_window_facts(*entry) for entry in catalogue.windows()])
    out.table(_totals_table(totals))
    _show_superseded(catalogue, out)
    show_faults(faults, out)
    verdict = f"{len(faults)} fault{'s' * (len(faults) > 1)}" if faults else "no fault"
    out.say(
        f"{objects:,} objects read, {show_bytes(size)}, in {seconds:,.1f} s: {verdict}",
        "bold red" if faults else "bold green",
    )
    out.document(
        {
            "tables": totals, "objects": objects, "bytes": size, "seconds": round(seconds, 3),
            "superseded": [note.was for _, note in catalogue.superseded],
            "faults": [_fault_facts(fault) for fault in faults],
        }
    )  # fmt: skip
    return EXIT_FAULT if faults else EXIT_OK


def show_faults(faults: list[Fault], out: Output) -> None:
    """Print the faults: the object's whole name, what of it, and how."""
    for fault in faults[:FAULTS_SHOWN]:
        out.say(f"FAULT {fault.object}: {fault.field}: {fault.detail}", "red")
    if len(faults) > FAULTS_SHOWN:
        out.say(f"and {len(faults) - FAULTS_SHOWN} more; --json has all of them", "red")


def _read(store: ObjectStore, selection: Selection, out: Output) -> Catalogue:
    with out.progress("reading manifests") as step:
        return read_catalogue(store, selection, step)


def _show_superseded(catalogue: Catalogue, out: Output) -> None:
    for _, note in catalogue.superseded:
        rows = "unknown" if note.manifest is None else f"{note.manifest.rows:,}"
        out.say(f"superseded, no part of the archive: {note.was} ({rows} rows)", "yellow")


def _window_facts(place: tuple[str, Window], manifests: list[Manifest]) -> dict[str, Any]:
    table, window = place
    times = [t for m in manifests for t in (m.time_min, m.time_max) if t is not None]
    return {
        "table": table, "from": window.start, "to": window.end,
        "rows": sum(m.rows for m in manifests), "bytes": sum(m.bytes for m in manifests),
        "objects": len(manifests), "merge_from": manifests[0].merge_from,
        "merge_to": manifests[-1].merge_to,
        "time_min": min(times, default=None), "time_max": max(times, default=None),
    }  # fmt: skip


def _totals(windows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    totals: dict[str, dict[str, Any]] = {}
    for one in windows:
        total = totals.setdefault(
            one["table"], {"windows": 0, "objects": 0, "rows": 0, "bytes": 0, "from": one["from"], "to": one["to"]}
        )  # fmt: skip
        total["windows"] += 1
        for name in ("objects", "rows", "bytes"):
            total[name] += one[name]
        total["from"], total["to"] = min(total["from"], one["from"]), max(total["to"], one["to"])
    return totals


def _totals_table(totals: dict[str, dict[str, Any]]) -> Any:
    table = new_table("Archive", "table", "from", "to", "windows", "objects", "rows", "bytes", texts=3)  # fmt: skip
    for name, total in totals.items():
        table.add_row(
            name, show_moment(total["from"]), show_moment(total["to"]), f"{total['windows']:,}",
            f"{total['objects']:,}", f"{total['rows']:,}", show_bytes(total["bytes"]),
        )  # fmt: skip
    sums = [sum(total[name] for total in totals.values()) for name in ("windows", "objects", "rows", "bytes")]  # fmt: skip
    table.add_section()
    table.add_row("all", "", "", *(f"{value:,}" for value in sums[:3]), show_bytes(sums[3]))
    return table


def _fault_facts(fault: Fault) -> dict[str, str]:
    return {"object": fault.object, "field": fault.field, "detail": fault.detail}
