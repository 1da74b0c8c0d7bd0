"""kopf in its thread: begun again when it ends by itself, gone when we stop."""

import asyncio
import json
import threading
from pathlib import Path

import kopf
import pytest

from libs.kube.client import open_kube
from libs.runtime.clock import SystemClock
from libs.runtime.health import HealthState
from libs.runtime.service import Runtime
from libs.telemetry.metrics import Metrics
from services.operator.settings import OperatorSettings
from services.operator.watching import Watch


class Impatient(Watch):
    """One that gives an API up after two attempts."""

    def _settings(self, runtime: Runtime, *, has_peers: bool) -> kopf.OperatorSettings:
        settings = super()._settings(runtime, has_peers=has_peers)
        settings.networking.error_backoffs = [0.01]
        return settings


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_kopf_that_gives_up_is_begun_again(tmp_path: Path) -> None:
    """The API is away for longer than it tries: it ends, and its thread with it; what is stopped ends, too."""
    config = tmp_path / "kubeconfig"
    context = {"cluster": "c", "user": "u", "namespace": "n"}
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:9"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": context}],
            }
        )
    )
    clock, metrics, begun = SystemClock(), Metrics(), asyncio.Semaphore(0)
    runtime = Runtime(clock, asyncio.Event(), HealthState("operator", "", clock, metrics), metrics)
    own = OperatorSettings(kubeconfig=str(config), retry_s=0.01, name="impatient")
    async with open_kube(str(config)) as kube:
        watch = Impatient(kube, own, "operator/me", begun=begun.release, changed=lambda: None)
        keeping = asyncio.ensure_future(watch.keep(runtime))
        async with asyncio.timeout(60):
            for _ in range(3):
                await begun.acquire()
            runtime.stop.set()
            await keeping
    left = [one for one in threading.enumerate() if one.name == "kopf-impatient"]
    for thread in left:
        # Longer than kopf's own patience with what it calls hung.
        await asyncio.to_thread(thread.join, 30)
    assert not [thread for thread in left if thread.is_alive()]
    shown = metrics.exposition()[0].decode()
    (ended,) = [line for line in shown.splitlines() if 'task="watch"' in line]
    assert float(ended.split()[-1]) >= 1
