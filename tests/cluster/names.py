"""Names of a release's objects, as the chart makes them."""

from dataclasses import dataclass

CHART_NAME = "kalshi-data"
ZONAL = ("registry", "connector", "poller")
DATABASE_NAME = "kalshi"
SUPERUSER = "postgres"


@dataclass(frozen=True, slots=True)
class Names:
    """One release's."""

    release: str

    @property
    def fullname(self) -> str:
        """The prefix of every object."""
        return self.release if CHART_NAME in self.release else f"{self.release}-{CHART_NAME}"

    def object(self, component: str, zone: str = "") -> str:
        """Return the name of a component's workload and Service."""
        return "-".join(filter(None, (self.fullname, component, zone)))

    def database_pod(self, database: str) -> str:
        """Return the pod of a zone's database, or of `production`."""
        if database == "production":
            return f"{self.object('production')}-0"
        return f"{self.object('database', database)}-0"

    def labels(self, component: str = "", zone: str = "") -> dict[str, str]:
        """Return what selects a component's pods."""
        found = {"app.kubernetes.io/name": CHART_NAME, "app.kubernetes.io/instance": self.release}
        if component:
            found["app.kubernetes.io/component"] = component
        if zone:
            found["kalshi-data.io/zone"] = zone
        return found

    def key_id(self) -> str:
        """Return the zones' API key ids at the simulator, as a template."""
        return "simulator-{zone}"
