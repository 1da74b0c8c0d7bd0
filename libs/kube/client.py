"""The one client of the Kubernetes API: where the cluster is and who we are there, requests in JSON, errors by class.

Objects stay what the API says, plain mappings; the modules beside this one take out what is needed. The library's typed
models are not used: they refuse what a newer cluster adds.
"""

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import aiohttp
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, ApiException, Configuration

from libs.kube.errors import (
    KubeConflict,
    KubeError,
    KubeInvalid,
    KubeNotConfigured,
    KubeNotFound,
    KubeRefused,
    KubeUnavailable,
)

Json: TypeAlias = dict[str, Any]
"""An object of the API."""

TIMEOUT_S: Final = 10.0
PAGE_OBJECTS: Final = 500
"""Objects of one answer of a list; longer lists come in pages."""
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"
"""Content types of the two kinds of PATCH in use; JSON is YAML, too."""

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_BY_STATUS: Final[dict[int, type[KubeError]]] = {
    400: KubeInvalid,
    401: KubeRefused,
    403: KubeRefused,
    404: KubeNotFound,
    405: KubeNotFound,
    409: KubeConflict,
    410: KubeUnavailable,  # a list whose next page is gone: it is asked for anew
    415: KubeInvalid,
    422: KubeInvalid,
    429: KubeUnavailable,
}


class Access(NamedTuple):
    """Where a cluster's API is and who we are there, for a library that brings its own client.

    token: empty where a certificate says who we are. ca_file, certificate_file, key_file: PEM, empty for none.
    """

    server: str
    namespace: str
    token: str
    ca_file: str
    certificate_file: str
    key_file: str
    is_verified: bool


class Kube:
    """One cluster's API as one account.

    Attributes:
        namespace: what a request means that names none: the pod's own, or the kubeconfig's context's.
        server: the API's URL, for messages.
    """

    def __init__(self, api: Any, namespace: str, timeout_s: float) -> None:
        self._api = api
        self._timeout_s = timeout_s
        self.namespace = namespace
        self.server: str = api.configuration.host

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json | None = None,
        content: str = "application/json",
    ) -> Json:
        """Make one request; return the object that is answered.

        Args:
            path: from the server's root, `/api/v1/nodes`.
            content: media type of the body.

        Raises:
            KubeError: one of its kinds; the message is the API's own.
        """
        headers = {"Accept": "application/json", "Content-Type": content}
        with map_kube_errors(f"{method} {path}"):
            answer = await self._api.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=self._timeout_s,
            )
            async with answer:
                text = await answer.text()
                if not 200 <= answer.status <= 299:
                    raise _error(answer.status, f"{method} {path}: {_reason(text, answer.reason)}")
        found = json.loads(text) if text else {}
        assert isinstance(found, dict), path
        return found

    async def list_all(self, path: str, *, selector: str = "") -> list[Json]:
        """Return every object of a list, page by page.

        Args:
            selector: of labels, as kubectl's -l; empty: all.

        Raises:
            KubeError: as request.
        """
        query = {"limit": str(PAGE_OBJECTS)} | ({"labelSelector": selector} if selector else {})
        objects: list[Json] = []
        while True:
            page = await self.request("GET", path, query=query)
            objects += page.get("items") or []
            more = (page.get("metadata") or {}).get("continue")
            if not more:
                return objects
            query["continue"] = more


@asynccontextmanager
async def open_kube(
    kubeconfig: str = "", *, namespace: str = "", timeout_s: float = TIMEOUT_S
) -> AsyncIterator[Kube]:
    """Open a client; nothing is asked yet.

    Args:
        kubeconfig: a file; empty: the pod's service account, and where there is none what kubectl takes (KUBECONFIG, the home's).
        namespace: instead of the account's own.
        timeout_s: of each request, seconds.

    Raises:
        KubeNotConfigured: no cluster is named.
    """
    settings = Configuration()
    own = await _configure(settings, kubeconfig)
    # Its own retries would take longer than whoever asks has: retrying is the caller's decision.
    settings.retries = False
    # Python 3.13 demands key usage and key identifiers, which authorities of clusters in use do not have.
    settings.disable_strict_ssl_verification = True
    async with ApiClient(configuration=settings) as api:
        yield Kube(api, namespace or own or "default", timeout_s)


async def read_access(kubeconfig: str = "") -> Access:
    """Read anew what open_kube would use: a pod's token is another one every hour.

    Raises:
        KubeNotConfigured: no cluster is named.
    """
    settings = Configuration()
    own = await _configure(settings, kubeconfig)
    token = await settings.get_api_key_with_prefix("BearerToken") or ""
    return Access(
        server=settings.host or "",
        namespace=own or "default",
        token=token.removeprefix("Bearer "),
        ca_file=settings.ssl_ca_cert or "",
        certificate_file=settings.cert_file or "",
        key_file=settings.key_file or "",
        is_verified=settings.verify_ssl,
    )


async def _configure(settings: Any, kubeconfig: str) -> str:
    """Fill in server, authority and account; return the namespace they belong to, empty when they say none."""
    try:
        if not kubeconfig and (_ACCOUNT / "token").is_file():
            config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
            return (_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        file = kubeconfig or None
        await config.load_kube_config(config_file=file, client_configuration=settings)
        _, active = config.list_kube_config_contexts(config_file=file)
        found = (active or {}).get("context", {}).get("namespace", "")
    except (config.ConfigException, OSError, KeyError, ValueError) as error:
        where = kubeconfig or "neither a pod's service account nor a kubeconfig"
        raise KubeNotConfigured(f"{where}: {error}") from error
    return str(found or "")


@contextmanager
def map_kube_errors(what: str) -> Iterator[None]:
    """Raise this room's errors in place of the library's and the socket's, with the cause chained."""
    try:
        yield
    except ApiException as error:
        raise _error(error.status or 0, f"{what}: {error.reason}") from error
    except (OSError, aiohttp.ClientError) as error:  # a TimeoutError is an OSError
        raise KubeUnavailable(f"{what}: {str(error) or type(error).__name__}") from error
    except RuntimeError as error:
        # A session that is closed while a request waits says so only in words.
        if "closed" not in str(error):
            raise
        raise KubeUnavailable(f"{what}: {error}") from error


def _error(status: int, message: str) -> KubeError:
    kind = _BY_STATUS.get(status, KubeUnavailable if status >= 500 or not status else KubeInvalid)
    return kind(message)


def _reason(text: str, fallback: str) -> str:
    """The API's own sentence of a Status object."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:500] or fallback
