"""What can go wrong with the Kubernetes API, by what to do about it."""

from typing import ClassVar


class KubeError(Exception):
    """The Kubernetes API did not do what it was asked to."""

    retryable: ClassVar[bool] = False


class KubeUnavailable(KubeError):
    """The API is away, overloaded or does not answer in time; ask again."""

    retryable: ClassVar[bool] = True


class KubeConflict(KubeError):
    """Somebody else changed or made the object meanwhile; read it again."""

    retryable: ClassVar[bool] = True


class KubeRefused(KubeError):
    """The API does not let this account do it; check its Role and binding."""


class KubeNotFound(KubeError):
    """There is no such object, or the cluster does not know its kind."""


class KubeInvalid(KubeError):
    """The API does not accept the object; its message says which field and why."""


class KubeNotConfigured(KubeError):
    """No cluster is named: neither a service account of a pod nor a usable kubeconfig."""
