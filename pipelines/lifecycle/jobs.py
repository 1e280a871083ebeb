"""What a run has done on the cluster: its driver as a Ray job, training by Ray Train, measuring in a worker.

The one file of runs that knows Ray. Its callers are drivers of the cluster already, but for who submits a job.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster import forking, runtime
from cluster.errors import ExtraMissing, InvalidRequest, StrataError, Unavailable, shorten
from cluster.settings import ClusterSettings
from pipelines.lifecycle import waiting
from pipelines.lifecycle.declared import Train
from pipelines.settings import HOME, Settings

RETRIES = 3
AGENT_SECONDS = 60.0  # until a node that has just come up takes jobs
OVER = ("SUCCEEDED", "FAILED", "STOPPED")


class OnRay:
    """The hands of a run whose driver this process is."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def needs(self, train: Train) -> str:
        """What training takes of the cluster, in words."""
        kind, each = _shares(train)
        return waiting.amount(int(train.workers * each), kind)

    def free(self) -> str:
        """How much of the cluster nobody has, in words; empty where its store does not tell."""
        import ray  # noqa: PLC0415 - as above

        try:
            there, left = ray.cluster_resources(), ray.available_resources()
        except ray.exceptions.RayError:
            return ""
        kinds = [kind for kind in ("CPU", "GPU") if there.get(kind)]
        return " and ".join(f"{left.get(kind, 0.0):g} of {there[kind]:g} {kind}s" for kind in kinds)

    def tune(self, config: Mapping[str, Any]) -> None:
        """Raises ExtraMissing, InvalidRequest where the cluster can never hold the workers, Unavailable."""
        import ray  # noqa: PLC0415 - not before its environment stands

        try:
            from ray.train import FailureConfig, RunConfig, ScalingConfig  # noqa: PLC0415
            from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415
        except ImportError:
            raise ExtraMissing("training", "train") from None

        train = Train.model_validate(config["train"])
        there = ray.cluster_resources()
        kind, each = _shares(train)
        gpu = kind == "GPU"
        if not gpu and there.get("CPU", 0) < train.workers * train.threads:
            remedy = f"the cluster has {there.get('CPU', 0):g} CPUs; lower train.workers or train.threads"
            raise InvalidRequest("train.workers", f"{train.workers} of {train.threads} threads", remedy)
        trainer = TorchTrainer(
            _tune, train_loop_config=dict(config), torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=train.workers, use_gpu=gpu, resources_per_worker={kind: each}),
            run_config=RunConfig(
                name="ray", storage_path=str(config["out"]), failure_config=FailureConfig(max_failures=RETRIES)
            ),
        )  # fmt: skip
        try:
            trainer.fit()
        except Exception as wrong:
            if isinstance(wrong, StrataError):
                raise
            if (own := _own(wrong)) is not None:
                raise own from None
            raise Unavailable("the fine-tune", _last(wrong)) from wrong

    def measure(
        self, folder: str, files: Mapping[str, str], max_tokens: int, cpus: int, begun: str
    ) -> dict[str, Any]:  # fmt: skip
        """See `answering.measure`. Raises what it raises."""
        import ray  # noqa: PLC0415 - as above

        from pipelines.lifecycle.answering import measure  # noqa: PLC0415 - it is shipped by name

        asked = ray.remote(measure).options(num_cpus=cpus, max_retries=RETRIES)
        try:
            found: dict[str, Any] = ray.get(asked.remote(folder, dict(files), max_tokens, cpus, begun))
        except ray.exceptions.RayTaskError as wrong:
            raise (wrong.cause if isinstance(wrong.cause, StrataError) else wrong) from None
        except ray.exceptions.RayError as wrong:
            raise Unavailable("the evaluation", _last(wrong)) from None
        return found

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """See `driver.Client.request`."""
        from pipelines.cli import keys  # noqa: PLC0415 - as above
        from pipelines.driver import connect  # noqa: PLC0415

        cluster = self._settings.cluster
        with connect(cluster.url, keys.operator(cluster)) as gateway:
            return gateway.request(method, path, body)

    def pause(self, seconds: float) -> None:
        """Let time go by."""
        time.sleep(seconds)


def _shares(train: Train) -> tuple[str, float]:
    """What each worker takes: a GPU where the cluster has one for each, or its threads."""
    import ray  # noqa: PLC0415 - as above

    gpu = ray.cluster_resources().get("GPU", 0) >= train.workers
    return ("GPU", 1.0) if gpu else ("CPU", float(train.threads))


def _own(wrong: Exception) -> StrataError | None:
    """What one of our own workers said was wrong, where that is what a fine-tune ended by."""
    for failure in getattr(wrong, "worker_failures", {}).values():
        said = getattr(failure, "_base_exc", failure)  # as Ray Train wraps it
        if isinstance(said, StrataError):
            return said
    return None


def _tune(config: dict[str, Any]) -> None:
    """What Ray Train calls on each worker. DeepSpeed is imported there and not by the driver."""
    waiting.marker(Path(config["out"])).touch()  # before the import, which takes a while
    from pipelines.lifecycle.tuning import tune_worker  # noqa: PLC0415

    tune_worker(config)


def submit(cluster: ClusterSettings, run: str, attempt: str, variables: Mapping[str, str], file: str | None) -> str:
    """Have the cluster drive a run; the id of the Ray job. Raises Unavailable where it takes no jobs."""
    client = _client(cluster)
    words = [forking.interpreter(), "-m", "pipelines.lifecycle.drive", run, *(["-f", file] if file else [])]
    given: dict[str, Any] = {"env_vars": {**variables, "PYTHONPATH": str(HOME)}}
    if cluster.address != "local":
        given["working_dir"] = str(HOME)  # other machines have no code of ours
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            job: str = client.submit_job(
                entrypoint=" ".join(words), submission_id=f"strata-{run}-{attempt}", runtime_env=given,
                metadata={"strata_run": run},
            )  # fmt: skip
            return job
        except RuntimeError as wrong:
            if "No available agent" not in str(wrong) or time.monotonic() > deadline:
                raise Unavailable("Ray's jobs", _last(wrong)) from None
            time.sleep(0.5)


def end(cluster: ClusterSettings, job: str) -> None:
    """Stop a driver that may still be at it."""
    client = _client(cluster)
    try:
        client.stop_job(job)
    except RuntimeError as wrong:
        if "does not exist" not in str(wrong):
            raise Unavailable("Ray's jobs", _last(wrong)) from None


def fallen(cluster: ClusterSettings, job: str) -> str:
    """The last words of a driver that has ended; nothing of one that is at it, or that nobody knows of by now."""
    try:
        client = _client(cluster)
        if client.get_job_status(job).value not in OVER:
            return ""
        return _last(RuntimeError(client.get_job_logs(job)))
    except (RuntimeError, Unavailable):
        return ""


def _client(cluster: ClusterSettings) -> Any:
    os.environ.update(runtime.environment(cluster))  # Ray reads its token's place from there
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415

    running = runtime.find(cluster)
    if cluster.address == "local" and running is None:
        raise Unavailable("the local cluster", "it is not up; run `strata up --detach`")
    where = f"http://{running.dashboard}" if running and "://" not in running.dashboard else None
    if running is not None and not running.dashboard:
        raise Unavailable("Ray's jobs", "they need its dashboard; set cluster.dashboard: true and start again")
    try:
        return JobSubmissionClient(where)
    except (ConnectionError, RuntimeError) as wrong:
        raise Unavailable("Ray's jobs", _last(wrong)) from None


def _last(wrong: BaseException) -> str:
    """The last line of what Ray says, which is where a traceback says what went wrong."""
    lines = [line.strip() for line in str(wrong).splitlines() if line.strip()]
    return shorten(lines[-1] if lines else type(wrong).__name__, 300)
