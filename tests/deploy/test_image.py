"""The image's recipe: who runs in it, what is in it, and that every service shares its layers."""

import re
import runpy
import tomllib
from typing import Any

import hcl2
import pytest
import yaml

from services.cli.catalogue import SERVICES
from tests.deploy.dockerfiles import DOCKERFILE, copied, last, lineage, stages
from tests.deploy.locks import ROOT

BASES = {"python:3.13-slim-trixie", "debian:trixie-slim"}
FOLDERS = ("images/postgres", "images/s3")


def test_the_service_only_selects_the_default_command() -> None:
    """SERVICE is a variable of the image and no layer: all services share every one."""
    recipe, shared = lineage(DOCKERFILE, "runtime"), lineage(DOCKERFILE, "application")
    assert last(recipe, "ENTRYPOINT").exec_form() == ["kalshi-data"]
    assert last(recipe, "CMD").exec_form() == ["run"]
    assert recipe[: len(shared)] == shared
    assert {found.word for found in recipe[len(shared) :]} == {"ARG", "ENV", "LABEL"}
    assert "SERVICE=${SERVICE}" in last(recipe, "ENV").rest
    for stage in ("runtime", "dev"):
        defaults = [found.rest for found in lineage(DOCKERFILE, stage) if found.word == "ARG"]
        assert defaults[0].removeprefix("SERVICE=") in SERVICES


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        (["run"], ["run", "poller"]),
        (["run", "registry", "--check"], ["run", "registry", "--check"]),
        (["--version"], ["--version"]),
        ([], []),
    ],
)
def test_run_alone_is_the_service_of_the_image(
    given: list[str], becomes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The chart's arguments reach the command as they are; without any, help is printed and nothing starts."""
    called: list[list[str]] = []

    def note(arguments: list[str]) -> int:
        called.append(arguments)
        return 5

    monkeypatch.setattr("services.cli.__main__.main", note)
    monkeypatch.setattr("sys.argv", ["kalshi-data", *given])
    monkeypatch.setenv("SERVICE", "poller")
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "images" / "kalshi-data"), run_name="__main__")
    assert ended.value.code == 5
    assert called == [becomes]


def test_the_stages_are_those_that_are_built() -> None:
    """Builder first, runtime last, so that it is built when nobody says which, and dev; only known bases."""
    found = stages(DOCKERFILE)
    names = [stage.name for stage in found]
    assert names == ["builder", "code", "application", "dev", "runtime"]
    for number, stage in enumerate(found):
        assert stage.base in BASES | set(names[:number])


def test_the_process_is_nobody_and_writes_nothing() -> None:
    """An unprivileged numeric user, no bytecode at run time, a home that exists, no shell, no health check of Docker's."""
    recipe = lineage(DOCKERFILE, "runtime")
    assert last(recipe, "USER").rest == "10001:10001"
    assert last(recipe, "WORKDIR").rest == "/app"
    variables = " ".join(found.rest for found in recipe if found.word == "ENV")
    for wanted in ("HOME=/tmp", "TMPDIR=/tmp", "PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"):
        assert wanted in variables
    assert not {"HEALTHCHECK", "SHELL", "VOLUME"} & {found.word for found in recipe}


def test_dependencies_are_wheels_of_the_lock() -> None:
    """pip installs the image's lock by hash, builds nothing, and knows the code only afterwards."""
    builder = stages(DOCKERFILE)[0]
    assert builder.all("COPY")[0].split()[0] == "requirements.image.lock"
    installs = builder.all("RUN")[0]
    for wanted in ("--require-hashes", "--only-binary :all:", "requirements.image.lock"):
        assert wanted in installs
    assert not re.search(r"pip.* install", " ".join(builder.all("RUN")[1:]))
    assert copied(DOCKERFILE) - {"requirements.image.lock", "images/kalshi-data"} == {
        "pyproject.toml", "config", "libs", "migrations", "services",
        "charts/kalshi-data/crds",  # what `kalshi-data crds apply` brings to a cluster
        "images/kalshi-data-reload",
    }  # fmt: skip


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    """.dockerignore begins with everything and lets in exactly the sources of COPY, without bytecode."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == copied(DOCKERFILE)
    assert {"**/__pycache__", "**/*.pyc"} <= set(rules[-2:])
    assert all((ROOT / source).exists() for source in copied(DOCKERFILE))


def test_the_build_is_named_in_labels_and_by_the_program() -> None:
    """VERSION, REVISION and CREATED reach the OCI labels and the variables that `kalshi-data --version` reads."""
    runtime = stages(DOCKERFILE)[-1]
    labels, variables = " ".join(runtime.all("LABEL")), " ".join(runtime.all("ENV"))
    for argument, label, variable in (
        ("VERSION", "version", "VERSION"),
        ("REVISION", "revision", "COMMIT"),
        ("CREATED", "created", "DATE"),
    ):
        assert f"{argument}=" in runtime.all("ARG")  # empty: the program knows its own version
        assert f'org.opencontainers.image.{label}="${{{argument}}}"' in labels
        assert f"KALSHI_DATA_BUILD_{variable}=${{{argument}}}" in variables


def test_the_command_is_the_projects_script() -> None:
    """images/kalshi-data calls what pyproject.toml calls `kalshi-data`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, function = project["scripts"]["kalshi-data"].partition(":")
    text = (ROOT / "images" / "kalshi-data").read_text(encoding="utf-8")
    assert f"from {module} import {function}\n" in text
    assert text.endswith(f"sys.exit({function}(arguments))\n")
    assert text.startswith("#!/opt/kalshi-data/bin/python\n")


def test_bake_builds_every_image_for_both_machines() -> None:
    """One target an image, arm64 and amd64, from the Dockerfile, target and arguments that exist."""
    bake = _bake()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert bake["variable"]["VERSION"]["default"] == version
    # The tag that the chart asks for when nobody names one.
    chart = yaml.safe_load((ROOT / "charts" / "kalshi-data" / "Chart.yaml").read_text())
    assert chart["appVersion"] == version
    assert bake["group"]["default"]["targets"] == ["kalshi-data", "service"]
    assert bake["group"]["development"]["targets"] == ["kalshi-data-postgres", "kalshi-data-s3"]
    targets = bake["target"]
    assert targets["service"]["matrix"]["service"] == sorted(SERVICES)
    assert targets["service"]["args"] == {"SERVICE": "service"}
    assert targets["kalshi-data"]["tags"] == ["${REGISTRY}kalshi-data:${VERSION}"]
    image = targets["_image"]
    assert (image["dockerfile"], image["target"]) == (DOCKERFILE.name, stages(DOCKERFILE)[-1].name)
    taken = {argument.partition("=")[0] for argument in stages(DOCKERFILE)[-1].all("ARG")}
    assert set(image["args"]) | {"SERVICE"} == taken
    for name, folder in zip(("kalshi-data-postgres", "kalshi-data-s3"), FOLDERS, strict=True):
        assert targets[name]["context"] == folder
        assert (ROOT / folder / "Dockerfile").exists()
    built = [image, targets["kalshi-data-postgres"], targets["kalshi-data-s3"]]
    assert [target["platforms"] for target in built] == [["linux/arm64", "linux/amd64"]] * 3


@pytest.mark.parametrize("folder", FOLDERS)
def test_images_of_development_start_without_a_root(folder: str) -> None:
    """A known base, a numeric unprivileged user, exec form, and an entry point that ends as the program itself."""
    path = ROOT / folder / "Dockerfile"
    recipe = [found for stage in stages(path)[-1:] for found in stage.instructions]
    assert {stage.base for stage in stages(path)} <= BASES
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", last(recipe, "USER").rest)
    program = last(recipe, "ENTRYPOINT").exec_form()
    assert f"COPY entrypoint /usr/local/bin/{program[0]}" in path.read_text(encoding="utf-8")
    assert last(recipe, "CMD").exec_form()
    script = (ROOT / folder / "entrypoint").read_text(encoding="utf-8").rstrip()
    assert script.splitlines()[-1].startswith("exec ")


def test_the_database_stops_without_waiting_for_its_clients() -> None:
    """The kubelet sends what the image says: SIGINT is PostgreSQL's fast shutdown, SIGTERM waits for everybody."""
    (stage,) = stages(ROOT / "images" / "postgres" / "Dockerfile")
    assert stage.all("STOPSIGNAL") == ["SIGINT"]


def _bake() -> dict[str, dict[str, Any]]:
    """docker-bake.hcl: kind of block -> name -> what it says."""
    with (ROOT / "docker-bake.hcl").open(encoding="utf-8") as file:
        blocks = _plain(hcl2.load(file))
    return {
        kind: {name: said for block in found for name, said in block.items()}
        for kind, found in blocks.items()
        if not kind.startswith("__")
    }


def _plain(value: Any) -> Any:
    """Return HCL as the parser gives it without its quotation marks."""
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value.strip('"') if isinstance(value, str) else value
