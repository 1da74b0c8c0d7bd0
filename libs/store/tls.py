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
            context = ssl.create_default_context(cafile=self.tls_ca_file or None)
        except OSError as error:
            raise StoreUnavailable(
                f"tls_ca_file {self.tls_ca_file}: {error.strerror or error}"
            ) from error
        # As PostgreSQL's own clients: chain, dates and host name. From 3.13 on Python also refuses authorities whose certificates
        # lack what a newer standard asks for, and such are in use.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context
