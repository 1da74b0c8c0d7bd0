"""Databases: the contract that the public image and the development image both obey; no cluster of the tests has the public one."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from tests.support.chart.render import Pod, Rendered, scenario

DATABASES = {"database", "production"}


def _databases(release: Rendered) -> list[tuple[Pod, Mapping[str, Any]]]:
    """Each database's pod, and its values."""
    of_zones = release.values["zoneDefaults"]["database"]
    return [
        (pod, of_zones if pod.component == "database" else release.values["production"])
        for pod in release.pods
        if pod.component in DATABASES
    ]


def _environment(pod: Pod) -> dict[str, str]:
    return {one["name"]: one["value"] for one in pod.spec["containers"][0]["env"]}


def _mounts(pod: Pod) -> dict[str, dict[str, Any]]:
    """Where -> the volume's source that lies there; a claim's is empty."""
    sources = {one["name"]: one for one in pod.spec["volumes"]}
    return {
        mount["mountPath"]: sources.get(mount["name"], {})
        for mount in pod.spec["containers"][0]["volumeMounts"]
    }


def test_images_are_told_what_they_make(release: Rendered) -> None:
    """User and name as values say, the password from a mounted Secret, the data in a folder of the volume (a disk has its own)."""
    assert _databases(release)
    for pod, values in _databases(release):
        told, mounts = _environment(pod), _mounts(pod)
        name = values["name"] if pod.component == "database" else values["database"]
        assert (told["POSTGRES_USER"], told["POSTGRES_DB"]) == (values["superuser"], name)
        password = PurePosixPath(told["POSTGRES_PASSWORD_FILE"])
        items = mounts[str(password.parent)]["secret"]["items"]
        assert {"key": "password", "path": password.name} in items
        (claim,) = pod.owner["spec"]["volumeClaimTemplates"]
        (volume,) = [m for m in pod.spec["containers"][0]["volumeMounts"] if m["name"] == claim["metadata"]["name"]]  # fmt: skip
        assert PurePosixPath(volume["mountPath"]) in PurePosixPath(told["PGDATA"]).parents
        assert pod.spec["containers"][0]["args"][0] == "postgres"


def test_they_run_as_the_images_user_and_write_where_they_must(release: Rendered) -> None:
    """The group owns the volume; sockets and shared memory have their places, the latter in memory."""
    for pod, values in _databases(release):
        context, mounts = pod.spec["securityContext"], _mounts(pod)
        assert (context["runAsUser"], context["runAsGroup"]) == (values["uid"], values["gid"])
        assert mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": values["shmSize"]}  # fmt: skip
        assert {"/var/run/postgresql", "/tmp"} <= mounts.keys()


def test_timescale_is_loaded_where_the_image_has_it() -> None:
    """And tuned by the chart alone; an image without it would not start with its library."""
    for name, has in (("eks", True), ("held", True), ("kind", False)):
        for pod, values in _databases(scenario(name)):
            assert values["timescaledb"] is has
            arguments = pod.spec["containers"][0]["args"]
            assert ("shared_preload_libraries=timescaledb" in arguments) is has
            assert (_environment(pod).get("NO_TS_TUNE") == "true") is has


def test_they_are_asked_over_tcp(release: Rendered) -> None:
    """While the image makes the database its own server listens on a socket only, and is not ours yet."""
    for pod, _ in _databases(release):
        container = pod.spec["containers"][0]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert "127.0.0.1" in " ".join(container[probe]["exec"]["command"]), pod.name
