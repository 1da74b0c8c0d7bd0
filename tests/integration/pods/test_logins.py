"""`kalshi-data migrate --roles`: who may log in, on a server whose master user is no superuser."""

from dataclasses import replace
from pathlib import Path

import pytest

from libs.runtime.errors import ConfigInvalid
from libs.store.errors import StoreRefused
from libs.store.logins import scram_verifier
from libs.store.partitions import act_as_owner
from libs.store.pool import Target, connect
from libs.store.schema import LEVELS, read_level
from services.migrate import command
from services.migrate.command import main
from services.migrate.roles import read_logins
from tests.integration.pods.conftest import DATABASE, MASTER, PASSWORD, Rds

SECRETS = {"writer": ("kd_writer", "w-1"), "archiver": ("archiver_of_july", "a-1")}


def mount(directory: Path, secrets: dict[str, tuple[str, str]]) -> Path:
    """Write Secrets as the kubelet does: files behind a hidden link."""
    data = directory / "..data"
    for role, texts in secrets.items():
        (data / role).mkdir(parents=True, exist_ok=True)
        for name, text in zip(("username", "password"), texts, strict=True):
            (data / role / name).write_text(text)
        if not (directory / role).exists():
            (directory / role).symlink_to(data / role)
    return directory


async def migrate(rds: Rds, tmp_path: Path, roles: Path) -> int:
    """Run the command of the chart's Job against the server, on this loop."""
    mount(tmp_path / "production", {"production": (MASTER, PASSWORD)})
    config = tmp_path / "deduplicator.yaml"
    config.write_text(
        "gatherers: [{zone: a, store: {host: '${NOT_SET_HERE}'}}]\n"
        f"production: {{host: 127.0.0.1, port: {rds.server.port}, database: {DATABASE}, tls: {rds.tls.mode},\n"
        f"  tls_ca_file: '{rds.tls.tls_ca_file}', user_file: {tmp_path}/production/production/username,\n"
        f"  password_file: {tmp_path}/production/production/password}}\n"
    )
    words = ["--config", str(config), "--roles", str(roles), "--wait-s", "30"]
    wanted, _ = command._wanted(command._parser().parse_args(words))
    return await command._run(wanted, 30)


def target(rds: Rds, user: str, password: str) -> Target:
    return replace(rds.server.target(DATABASE), user=user, password=password, tls=rds.tls)


async def _may(target: Target, statement: str) -> str:
    """Do something as kd_owner's deputy in a transaction; return who we are in it."""
    async with connect(target) as conn, conn.transaction():
        await act_as_owner(conn)
        await conn.execute(statement)
        user: str = await conn.fetchval("SELECT current_user")
        return user


async def test_a_master_that_is_no_superuser_migrates_and_gives_passwords(
    rds: Rds, tmp_path: Path
) -> None:
    """Over verified TLS where there is TLS; the role itself and a member of it log in and do what partitions need; rotated at the next run."""
    roles = mount(tmp_path / "roles", SECRETS)
    assert await migrate(rds, tmp_path, roles) == 0
    writer, archiver = target(rds, "kd_writer", "w-1"), target(rds, "archiver_of_july", "a-1")
    for login in (writer, archiver):
        assert await _may(login, "CREATE TABLE of_a_test (a int)") == "kd_owner"
        await _may(login, "DROP TABLE of_a_test")
    assert await _level(archiver) == LEVELS["production"]
    mount(tmp_path / "roles", {"writer": ("kd_writer", "w-2"), "status": ("kd_status", "s-1")})
    assert await migrate(rds, tmp_path, roles) == 0
    with pytest.raises(StoreRefused, match="kd_writer"):
        await _level(writer)
    for user, password in (("kd_writer", "w-2"), ("archiver_of_july", "a-1"), ("kd_status", "s-1")):
        assert await _level(target(rds, user, password)) == LEVELS["production"]
    # What the server writes down of it is no password.
    log = rds.server.log.read_text()
    assert log.count("SCRAM-SHA-256$4096:") >= 5
    assert not any(password in log for password in ("'w-1'", "'w-2'", "'a-1'", "'s-1'"))


async def _level(target: Target) -> int:
    async with connect(target) as conn:
        found = await read_level(conn)
        assert found is not None
        return found[0]


def test_the_verifier_is_the_one_of_the_standard() -> None:
    """The example of RFC 7677: password pencil, its salt, 4096 rounds; keys as other servers keep them."""
    import base64

    found = scram_verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    assert found == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


@pytest.mark.parametrize(
    ("role", "user", "password", "said"),
    [
        ("nobody", "u", "p", "no such role; there are owner, writer"),
        ("writer", "kd_reader", "p", "kd_reader is another role"),
        ("writer", "u", "pä", "printable ASCII"),
        ("writer", "u", "", "is empty"),
        ("kd_status", "ours", "p", "ours stands for two roles"),
    ],
)
def test_what_is_no_login_is_refused(
    tmp_path: Path, role: str, user: str, password: str, said: str
) -> None:
    """Every mistake in the directory is named before anything is sent; hidden names are the volume's own."""
    mount(tmp_path, {"reader": ("ours", "fine"), role: (user, password)})
    with pytest.raises(ConfigInvalid) as caught:
        read_logins(tmp_path)
    assert len(caught.value.faults) == 1 and said in caught.value.faults[0]
    assert str(tmp_path) in caught.value.faults[0]


def test_a_database_that_does_not_come_is_said_in_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The waiting has a bound, and the Job's own repetition begins where it ends: status 1 and the address."""
    arguments = ["--database", "production", "--dsn", "postgresql://u:p@127.0.0.1:1/d"]
    assert main([*arguments, "--wait-s", "0.1"]) == 1
    assert "u@127.0.0.1:1/d was not there within 0.1 s" in capsys.readouterr().err
    assert main(["--config", str(tmp_path / "none.yaml")]) == 2
    assert "--database: say gatherer or production" in capsys.readouterr().err
