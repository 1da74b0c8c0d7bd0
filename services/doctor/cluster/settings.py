"""What `doctor --cluster` reads of doctor.yaml: the databases, health addresses and forbidden edges of one release.

The chart renders the file for the pod of `helm test`; config/doctor.yaml shows all of it. It has no secret in it and
can be read where the Secrets are not mounted, so that a laptop can use the same file for what the API answers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from libs.runtime.secret import Secret
from libs.runtime.sections import Port, SlotSettings, StoreSettings


@dataclass(frozen=True)
class CheckedStore(StoreSettings):
    """A database, asked as a role that only reads (kd_status)."""

    password: Secret = Secret("")
    """The role's password itself; empty when secret_file names it, as in a cluster."""
    secret_file: str = ""
    """Path of the mounted password. Another name than password_file, because it is read only when the database is asked:
    where it is not mounted that check says so, and the rest goes on."""

    def check(self) -> Iterator[str]:
        """What spans fields."""
        yield from super().check()
        if bool(self.secret_file) == bool(self.password.reveal()):
            yield "secret_file: say either it or password"


@dataclass(frozen=True)
class CheckedZone:
    """One zone of the release."""

    zone: str
    """The zone's name, as its own configuration has it."""
    store: CheckedStore
    """The zone's database."""
    topology_zone: str = ""
    """Value of the nodes' label topology.kubernetes.io/zone that the zone is pinned to. Empty: the zone's name."""
    account: str = "default"
    """The exchange account whose limits the zone shares; a label only."""
    slots: SlotSettings = field(default_factory=SlotSettings)
    """The zone's connection slots, as in its gatherer.yaml, and the connections_max of its whole account."""
    health: tuple[str, ...] = ()
    """Base addresses of its services' health servers (http://NAME:8080); a service says itself which one it is."""


@dataclass(frozen=True)
class ForbiddenEdge:
    """Something that listens, and that this pod must not be able to reach."""

    name: str
    """What findings call it: `metrics of registry a`."""
    host: str
    """Host name or address."""
    port: Port
    """TCP port."""


@dataclass(frozen=True)
class ClusterSettings:
    """One release."""

    zones: tuple[CheckedZone, ...]
    """Every enabled zone."""
    production: CheckedStore
    """The production database, in the chart or elsewhere."""
    namespace: str = "default"
    """The namespace the release lies in; needed only for what the Kubernetes API is asked."""
    health: tuple[str, ...] = ()
    """Base addresses of the health servers of services of no zone: deduplicator, archiver, operator, simulator."""
    forbidden: tuple[ForbiddenEdge, ...] = ()
    """Edges that the policy table denies to the pod that runs this: metrics ports, the simulator, the S3 server. Empty:
    the release has no network policies, and nothing is tried."""
    storage_class: str = ""
    """StorageClass of the databases' volumes. Empty: the cluster's default one."""

    def check(self) -> Iterator[str]:
        """What spans fields."""
        if not self.zones:
            yield "zones: name at least one"


@dataclass(frozen=True)
class DoctorFile:
    """All of doctor.yaml."""

    cluster: ClusterSettings
    """The release."""
