"""Nothing that is a secret of any of our settings, of a variable or of a mounted Secret comes through the hider."""

import dataclasses
import json
import tempfile
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.runtime.layers import RANK_FILE, Layers
from libs.runtime.secret import HIDDEN, OrFile, Secret
from services.cli.catalogue import SERVICES, settings_class
from services.doctor.cluster.settings import DoctorFile
from services.status.redact import Hider, shown_configuration, shown_environment

PREFIXES = ("KALSHI_DATA_", "POD_")
PUBLIC = {"user"}
"""What may stand in a file of its own, beside a secret, and is none."""


def paths(cls: type[Any], before: str = "") -> Iterator[tuple[str, bool]]:
    """Every path of a settings class that holds a secret; whether it names a file that does."""
    for name, kind in typing.get_type_hints(cls, include_extras=True).items():
        here = f"{before}{name}"
        parts = set(_parts(kind))
        if Secret in parts or (OrFile in parts and name not in PUBLIC):
            yield here, False
            yield f"{here}_file", True
        elif name == "secret_file" or name.endswith("private_key_file"):
            yield here, True
        for part in parts:
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                listed = "0." if get_origin(kind) is tuple else ""
                yield from paths(part, f"{here}.{listed}")


def _parts(kind: Any) -> Iterator[Any]:
    """A type and what it is made of: Annotated, optional, tuple."""
    yield kind
    if get_origin(kind) is Annotated:
        yield from kind.__metadata__
    for one in get_args(kind):
        yield from _parts(one)


FOUND = sorted({one for cls in (*map(settings_class, SERVICES), DoctorFile) for one in paths(cls)})
FRAME = f"refused: {HIDDEN} is wrong https://{HIDDEN}@host/x and https://me:"
"""What stands around the secrets here; a secret that is a part of it would be hidden there too."""
TEXTS = st.text(st.characters(exclude_characters="*", exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=40)  # fmt: skip


def test_the_settings_have_the_secrets_that_are_known() -> None:
    """Or the others prove nothing."""
    known = {
        "store.password",
        "exchange.api_key_id",
        "archiver.s3.secret_access_key",
        "production.password",
    }
    known |= {"exchange.private_key_file", "gatherers.0.store.password_file", "keys.0.key_id"}
    known |= {"cluster.zones.0.store.secret_file", "cluster.production.password"}
    assert known - {path.removeprefix("simulator.") for path, _ in FOUND} == set()


@pytest.mark.parametrize(("path", "is_file"), FOUND)
@settings(max_examples=6, deadline=None)
@given(text=TEXTS)
def test_no_secret_of_any_setting_is_handed_out(path: str, is_file: bool, text: str) -> None:
    """Wherever it turns up: by itself, in a sentence, in a URL, in a JSON text, as a key; from the setting, a file, a variable."""
    variable = "KALSHI_DATA_" + path.replace(".", "__").upper()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "mounted")
        file.write_text(f"{text}\n", encoding="utf-8")
        layers, value = Layers(), str(file) if is_file else text
        layers.put(path, value, "file x", RANK_FILE)
        hider = Hider(layers, {} if is_file else {variable: text})
        document = {
            "configuration": shown_configuration(layers),
            "environment": shown_environment({variable: value}, PREFIXES),
            "said": [
                f"refused: {text} is wrong",
                quote(text, safe=""),
                json.dumps({"detail": text}),
            ],
            "url": f"https://me:{text}@host/x and https://{text}@host",
            "keys": {text: True},
        }
        shown = list(_leaves(hider.hide(document)))
        assert not [one for one in shown if one == text]
        if len(text) >= 12 and not str(file).count(text):
            forms = {text, quote(text, safe=""), json.dumps(text)[1:-1]}
            assert not [one for one in shown for form in forms if form in one]
        if text not in FRAME:
            assert f"refused: {HIDDEN} is wrong" in shown
            assert f"https://{HIDDEN}@host/x and https://{HIDDEN}@host" in shown


@given(text=TEXTS, name=st.sampled_from(["PGPASSWORD", "AWS_SESSION_TOKEN", "S3_SECRET", "MY_KEYS__0", "KALSHI_DATA_X__TOKEN__0"]))  # fmt: skip
def test_no_variable_with_a_secrets_name_is_handed_out(text: str, name: str) -> None:
    """Nor what it holds, where somebody else says it."""
    hider = Hider(Layers(), {name: text})
    shown = hider.hide([shown_environment({name: text}, ("",)), f"with {text} in it"])
    assert shown == [{name: HIDDEN}, f"with {HIDDEN} in it"]


def _leaves(value: Any) -> Iterator[str]:
    """Every text of a document, its keys too."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from _leaves(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _leaves(entry)
    elif isinstance(value, str):
        yield value
