"""Who may log in, as a directory says: DIR/ROLE/username and DIR/ROLE/password, as mounted Secrets do.

ROLE is a role of the migrations, with or without its `kd_`. The user may be the role itself or any other name, which
then becomes its member; a role without a directory stays as it is.
"""

from pathlib import Path

from libs.runtime.errors import ConfigInvalid
from libs.store.logins import ROLES, Login

PREFIX = "kd_"


def read_logins(directory: Path) -> tuple[Login, ...]:
    """Read every role's user and password.

    Raises:
        ConfigInvalid: no such directory, a role that nobody knows, or files that are missing or unusable; all at once.
    """
    try:
        # Hidden names are the volume's own (..data).
        found = sorted(d for d in directory.iterdir() if not d.name.startswith("."))
    except OSError as error:
        raise ConfigInvalid([f"--roles {directory}: {error.strerror}"]) from error
    faults: list[str] = []
    logins = tuple(login for entry in found if (login := _read(entry, faults)))
    users = [login.user for login in logins]
    twice = sorted({user for user in users if users.count(user) > 1})
    faults += [f"--roles {directory}: the user {user} stands for two roles" for user in twice]
    if faults:
        raise ConfigInvalid(faults)
    return logins


def _read(entry: Path, faults: list[str]) -> Login | None:
    role = entry.name if entry.name.startswith(PREFIX) else PREFIX + entry.name
    if role not in ROLES:
        known = ", ".join(name.removeprefix(PREFIX) for name in ROLES)
        faults.append(f"--roles {entry}: no such role; there are {known}")
        return None
    user, password = (_text(entry / name, faults) for name in ("username", "password"))
    if not user or not password:
        return None
    if user in ROLES and user != role:
        faults.append(f"--roles {entry}: the user {user} is another role")
        return None
    if not password.isascii() or not password.isprintable():
        faults.append(f"--roles {entry}: the password must be printable ASCII")
        return None
    return Login(role, user, password)


def _text(file: Path, faults: list[str]) -> str:
    try:
        text = file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no UTF-8 text"
        faults.append(f"--roles {file}: cannot be read ({reason})")
        return ""
    if not text:
        faults.append(f"--roles {file}: is empty")
    return text
