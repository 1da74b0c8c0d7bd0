"""A small archive in a folder, made without a database: windows of order-book changes, each row one line."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from libs.archive.keys import ObjectKey, Window
from libs.archive.manifest import Gatherer, Manifest, encode_manifest
from libs.archive.objects import ObjectStore
from libs.archive.parquet import PYARROW_VERSION, SCHEMA_VERSION, write_parquet
from libs.marketdata.tables import ORDERBOOK_DELTAS
from libs.marketdata.units import HOUR

START = 1_781_157_600_000_000
"""2026-06-11 06:00 UTC."""
WHO = (Gatherer(2, "00000000-0000-0000-0000-0000000000a2", "a"),)
Row = tuple[str, int, int]
"""ticker, microseconds after START, merge_no."""


@dataclass
class Bucket:
    """Writes objects as the archiver does; `store` is what it wrote to."""

    folder: Path
    manifests: list[Manifest] = field(default_factory=list)

    @property
    def store(self) -> ObjectStore:
        return ObjectStore(str(self.folder / "archive"))

    @property
    def root(self) -> Path:
        return self.folder / "archive"

    def put(
        self, rows: Sequence[Row], supplement: int, merges: tuple[int, int], hour: int = 0
    ) -> Manifest:
        """Put the rows as they come, with a manifest that fits them."""
        window = Window(START + hour * HOUR, START + (hour + 1) * HOUR)
        key = ObjectKey("orderbook_deltas", window, supplement, merges[1])
        source, target = self.folder / "rows.csv", self.folder / "object.parquet"
        source.write_text("".join(map(line, rows)))
        written = write_parquet(ORDERBOOK_DELTAS, source, target)
        manifest = Manifest(
            table=key.table, window_from=window.start, window_to=window.end, supplement=supplement, object=str(key),
            rows=written.rows, bytes=written.size_bytes, sha256=written.sha256, time_min=written.time_min,
            time_max=written.time_max, ticker_min=written.ticker_min, ticker_max=written.ticker_max,
            merge_from=merges[0], merge_to=merges[1], schema_version=SCHEMA_VERSION,
            pyarrow_version=PYARROW_VERSION, gatherers=WHO,
        )  # fmt: skip
        self.store.put(str(key), target, written.sha256)
        self.say(manifest)
        self.manifests.append(manifest)
        return manifest

    def say(self, manifest: Manifest, **changes: object) -> None:
        """Put a manifest, or what somebody made of it."""
        key = ObjectKey(
            manifest.table, Window(manifest.window_from, manifest.window_to), manifest.supplement, manifest.merge_to,
        )  # fmt: skip
        said = msgspec.structs.replace(manifest, **changes)
        self.store.put_small(key.manifest, encode_manifest(said))

    def replace(self, manifest: Manifest, data: bytes) -> None:
        """Put other bytes under an object's name, and say in the manifest that they are right."""
        (self.root / manifest.object).write_bytes(data)
        self.say(manifest, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def line(row: Row) -> str:
    ticker, moment, merge_no = row
    connection = "00000000-0000-0000-0000-00000000000a"
    at = START + moment
    return f"{at},{at},-5,1,52000,1,1,t,{connection},{ticker},,,2,{merge_no}\n"


def sound(folder: Path) -> Bucket:
    """Two hours, the first with a supplement."""
    bucket = Bucket(folder)
    bucket.put([("A", 1, 3), ("A", 5, 1), ("B", 2, 2)], 0, (0, 3))
    bucket.put([("A", 3, 4), ("C", 1, 6)], 1, (3, 6))
    bucket.put([("A", HOUR, 5)], 0, (0, 6), hour=1)
    return bucket
