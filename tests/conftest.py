"""What all tests share: one Ray cluster a run, on loopback, with its own token and folders."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from cluster import runtime
from cluster.loopback import free_ports
from cluster.settings import ClusterSettings

# A test reads no settings of the person who runs it.
for name in [name for name in os.environ if name.startswith(("STRATA_", "RAY_"))]:
    del os.environ[name]
if "PYTEST_XDIST_WORKER" in os.environ:  # each has a core: threads that wait for each other's turns took twice the time
    os.environ["OMP_NUM_THREADS"] = "1"
# A slow machine is no fault of what is tested.
slow = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("slow", hypothesis.settings.default, deadline=None, suppress_health_check=slow)
hypothesis.settings.load_profile("slow")
# Ray reads these when it is imported, which some test may do before any cluster stands.
os.environ.update(runtime.ALWAYS)


@pytest.fixture(scope="session")
def cluster_settings() -> Iterator[ClusterSettings]:
    """Settings of the shared cluster: a state folder of its own and a free port."""
    folder = Path(tempfile.mkdtemp(prefix="strata-tests-"))
    http, dashboard = free_ports(2)
    yield ClusterSettings(
        state_dir=folder, http_port=http, num_cpus=2, dashboard_port=dashboard, head_seconds=3, stall_seconds=3
    )
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_cluster(cluster_settings: ClusterSettings) -> Iterator[ClusterSettings]:
    """The shared cluster, with this process as a driver; for tests marked `cluster`."""
    running = runtime.start(cluster_settings)
    try:
        runtime.connect(cluster_settings, running)
        yield cluster_settings
    finally:
        runtime.disconnect()
        runtime.stop(cluster_settings)
