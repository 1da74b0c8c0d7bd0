"""TLS to a database: how much of it, and whom to trust."""

import ssl
from dataclasses import dataclass
from typing import Literal

from libs.store.errors import StoreUnavailable

TlsMode = Literal["prefer", "require", "verify-full"]


@dataclass(frozen=True, slots=True)
class Tls:
    """mode: as sections.StoreSettings.tls says; tls_ca_file: a PEM file of authorities, empty for the system's."""

    mode: TlsMode = "prefer"
    tls_ca_file: str = ""

    def ask(self) -> ssl.SSLContext | str:
        """Return what the driver takes for one new connection; files are read at every call.

        Raises:
            StoreUnavailable: the file of authorities cannot be read or holds none; it may be there in a moment.
        """
        if self.mode != "verify-full":
            return self.mode
        try:
            # Verifies the chain and the host's name; PostgreSQL's own TLS begins at 1.2.
            context = ssl.create_default_context(cafile=self.tls_ca_file or None)
        except OSError as error:
            raise StoreUnavailable(
                f"tls_ca_file {self.tls_ca_file}: {error.strerror or error}"
            ) from error
        return context
