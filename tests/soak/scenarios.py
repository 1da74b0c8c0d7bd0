"""Every scenario with the full figures of the issue; the test suite has smaller ones (tests/integration/local/test_soak.py)."""

from collections.abc import Callable

from tests.soak.away import DatabaseAway
from tests.soak.dedup_kills import DedupKills
from tests.soak.dedup_takeover import DedupTakeover
from tests.soak.gatherer_restored import GathererRestored
from tests.soak.kills import Kills
from tests.soak.production import ProductionAway, ProductionRestored
from tests.soak.restored import Restored
from tests.soak.rolling import Rolling
from tests.soak.s3_away import S3Away
from tests.soak.scenario import Scenario
from tests.soak.spool_full import SpoolFull
from tests.soak.storm import Storm
from tests.soak.subscribe import Subscribe
from tests.soak.takeover import Takeover

# The bound of 60 s is for a catalogue in the database; without one the registry lists 100,000 markets within its read budget first.
FULL: dict[str, Callable[[], Scenario]] = {
    "kills": Kills,
    "takeover": Takeover,
    "database-away": DatabaseAway,
    "database-away-no-memory": lambda: DatabaseAway(has_memory=False),
    "spool-full": SpoolFull,
    "rolling": Rolling,
    "restored": Restored,
    "storm": Storm,
    "subscribe-100k": Subscribe,
    "subscribe-100k-unlisted": lambda: Subscribe(is_listed=False, within_s=150.0),
    "dedup-kills": DedupKills,
    "dedup-takeover": DedupTakeover,
    "production-away": ProductionAway,
    "production-restored": ProductionRestored,
    "gatherer-restored": GathererRestored,
    "s3-away": S3Away,
}
