"""The command line: our own words, and helm's, which are handed on as they stand and in their order."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.rollout.errors import WordsWrong
from services.rollout.judge import Demands

WITH_VALUE: Final = (
    "-f", "--values", "--set", "--set-string", "--set-file", "--set-json", "--set-literal", "--version", "--repo",
    "--username", "--password", "--ca-file", "--cert-file", "--key-file", "--keyring", "--timeout", "--history-max",
    "--registry-config", "--repository-config", "--repository-cache", "--post-renderer", "--post-renderer-args",
)  # fmt: skip
"""Words of `helm upgrade` that have a value."""
ALONE: Final = (
    "--reuse-values", "--reset-values", "--reset-then-reuse-values", "--devel", "--insecure-skip-tls-verify",
    "--plain-http", "--pass-credentials", "--verify", "--dependency-update", "--enable-dns", "--no-hooks", "--debug",
    "--skip-schema-validation", "--disable-openapi-validation", "--take-ownership", "--force-conflicts",
)  # fmt: skip
"""Words of `helm upgrade` that stand alone."""
OF_VALUES: Final = frozenset(
    ("-f", "--values", "--set", "--set-string", "--set-file", "--set-json", "--set-literal", "--reuse-values",
     "--reset-values", "--reset-then-reuse-values")
)  # fmt: skip
"""Without any of them helm would go back to the chart's own values, since the steps set one."""
REFUSED: Final = {
    "--wait": "held zones never become ready as helm understands it, so it would wait for ever",
    "--wait-for-jobs": "as --wait",
    "--atomic": "as --wait",
    "--rollback-on-failure": "as --wait",
    "--install": "the first installation holds nobody: helm install",
    "-i": "the first installation holds nobody: helm install",
    "--description": "it is where the rollout remembers how far it is",
    "--force": "it replaces pods instead of rolling them",
    "--force-replace": "it replaces pods instead of rolling them",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for.

    Attributes:
        helm: words for `helm upgrade`. common_helm, common_kubectl: where the cluster is, for each of the two.
        held: zones that this run does not release. despite_full: release also a zone whose storage is full. steps_only: show the steps and do nothing.
        rollout_s: seconds that each workload of a step may take to be replaced; also its migrations.
    """

    release: str
    chart: str
    helm: tuple[str, ...]
    common_helm: tuple[str, ...]
    common_kubectl: tuple[str, ...]
    namespace: str
    held: frozenset[str]
    despite_full: bool
    steps_only: bool
    demands: Demands
    rollout_s: float


class _Pass(argparse.Action):
    """Keeps a word of helm's, with its value, in the order of the command line."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        words = [*(getattr(namespace, "helm", None) or ()), str(option_string)]
        namespace.helm = words if self.nargs == 0 else [*words, str(values)]


def parse(argv: Sequence[str]) -> Wanted:
    """Read the command line; argparse ends the process where it does not understand.

    Raises:
        WordsWrong: a word of helm's that would break the procedure.
    """
    for word in argv:
        refusal = REFUSED.get(word.partition("=")[0])
        if refusal is not None:
            raise WordsWrong(f"{word}: {refusal}")
        if "rollout.released" in word:
            raise WordsWrong(f"{word}: which zones are released is what the steps decide")
    given = _parser().parse_args(argv)
    helm = tuple(given.helm or ())
    if not OF_VALUES & set(helm):
        helm = (*helm, "--reset-then-reuse-values")
    namespace = ("--namespace", given.namespace) if given.namespace else ()
    kubeconfig = ("--kubeconfig", given.kubeconfig) if given.kubeconfig else ()
    context = given.kube_context
    return Wanted(
        release=given.release,
        chart=given.chart,
        helm=helm,
        common_helm=(*namespace, *kubeconfig, *(("--kube-context", context) if context else ())),
        common_kubectl=(*namespace, *kubeconfig, *(("--context", context) if context else ())),
        namespace=given.namespace or "",
        held=frozenset(given.hold),
        despite_full=given.despite_full,
        steps_only=given.dry_run,
        demands=Demands(given.sound_s, given.lag_s * 1000, given.within_s),
        rollout_s=given.rollout_s,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kalshi-data rollout",
        allow_abbrev=False,
        description="Upgrade a release zone by zone: after each zone all its slots must be live, without a gap since the step"
        " began and without lag, for a minute; otherwise it stops and says how to go back. Run it again to go on.",
        epilog="Words of `helm upgrade` (-f, --set, --version, --repo, ...) are handed on. Without any values of your own the"
        " release's are kept (--reset-then-reuse-values). Exit status: 0 done, 1 stopped, 2 wrong usage.",
    )
    parser.add_argument("release", metavar="RELEASE")
    parser.add_argument("chart", metavar="CHART", help="folder, file, or name in a repository")
    # Helm takes these two from the environment; kubectl does not, and would look elsewhere.
    place = os.environ.get
    parser.add_argument(
        "-n",
        "--namespace",
        default=place("HELM_NAMESPACE"),
        help="default: HELM_NAMESPACE, else the context's",
    )
    parser.add_argument("--kube-context", default=place("HELM_KUBECONTEXT"), metavar="NAME")
    parser.add_argument("--kubeconfig", metavar="FILE")
    parser.add_argument(
        "--hold", action="append", default=[], metavar="ZONE", help="do not release it in this run; a later one goes on"
    )  # fmt: skip
    parser.add_argument(
        "--despite-full",
        action="store_true",
        help="release also a zone whose storage is full: what its connectors hold back goes with their pods, as a gap",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the steps and do nothing")
    _seconds(parser, "--sound-s", 60.0, "without any doubt before the next zone")
    _seconds(
        parser, "--lag-s", 5.0, "of lag (p99, from the exchange's stamp to the commit) at most"
    )
    _seconds(
        parser,
        "--within-s",
        1_200.0,
        "until a zone whose pods are new must have been sound so long",
    )
    _seconds(parser, "--rollout-s", 5_400.0, "that each workload of a step may take to be replaced")
    for word in WITH_VALUE:
        parser.add_argument(word, action=_Pass, dest="helm", help=argparse.SUPPRESS)
    for word in ALONE:
        parser.add_argument(word, action=_Pass, dest="helm", nargs=0, help=argparse.SUPPRESS)
    return parser


def _seconds(parser: argparse.ArgumentParser, name: str, default: float, what: str) -> None:
    parser.add_argument(
        name,
        type=_positive,
        default=default,
        metavar="SECONDS",
        help=f"seconds {what}; default {default:g}",
    )


def _positive(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= 86_400:
        raise argparse.ArgumentTypeError("must be above 0, and at most 86400")
    return seconds
