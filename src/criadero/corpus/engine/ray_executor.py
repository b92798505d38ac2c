"""Tasks on Ray: one process a worker on this machine, or the workers of a cluster.

A Ray of our own listens on the loopback interface alone and leaves nothing behind. Retries are not Ray's
but the engine's, which knows which document was being worked on.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from time import monotonic
from typing import Any

from criadero.corpus.engine.executor import POLL_SECONDS, Ended, Executor, Inline
from criadero.corpus.engine.memory import guard
from criadero.corpus.engine.tasks import Task, perform
from criadero.errors import ResourceError

logger = logging.getLogger("criadero")

# The least that Ray accepts; descriptions of tasks are all that goes through it.
_OBJECT_STORE_BYTES = 80 << 20
_LOCK = "driver.lock"
# A Ray of our own that fails so often without a task done would fail for ever.
_MAX_STARTS = 5
# Ray itself waits a minute for a worker to start.
_BEGIN_SECONDS = 90.0
_CONNECT_SECONDS = 10


class RayExecutor:
    """Runs each task in a worker process of Ray, of which a death costs nothing but time.

    Used with `with`; Ray starts with the first task. Data never goes through Ray: tasks read and write
    files, so on a cluster the inputs and the output must be in folders that all nodes share under the same
    path. Nodes of a cluster run each other's code: let it listen on a trusted network only.
    """

    def __init__(self, workers: int | None = None, *, address: str | None = None) -> None:
        """Begin without a Ray.

        Args:
            workers: tasks at a time; default one for each processor that Ray has.
            address: of a running cluster, such as `10.0.0.1:6379`; default a Ray of our own.
        """
        self._workers = workers
        self._address = address
        self._stack = ExitStack()
        self._remote: Any = None
        self._running: dict[Any, Task] = {}
        self._starts = 0
        self._begun = 0.0

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._remote = None
        self._running.clear()
        self._stack.close()

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""
        if self._workers is None:
            self._start()
            import ray

            self._workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        return self._workers

    def _start(self) -> None:
        import ray

        if self._remote is None:
            self._stack.enter_context(_session(self._workers, self._address))
            self._remote = ray.remote(num_cpus=1, max_retries=0)(_perform_guarded)

    def submit(self, task: Task) -> None:
        """Hand a task to Ray."""
        self._start()
        if not self._running:
            self._begun = monotonic()
        self._running[self._remote.options(name=_name(task)).remote(task)] = task

    def ended(self, tick: Callable[[], None]) -> list[Ended]:
        """Wait for tasks that end."""
        import ray

        tick()
        if not self._running:
            return []
        if self._address is None and (_has_died() or self._stands_still()):
            return self._lost()
        found, _ = ray.wait(list(self._running), timeout=POLL_SECONDS, fetch_local=False)
        return [self._collect(reference) for reference in found]

    def _stands_still(self) -> bool:
        """Whether nothing runs though tasks wait: Ray forgets one whose worker is killed as it starts."""
        if any(task.cursor.exists() for task in self._running.values()):
            self._begun = monotonic()
        return monotonic() - self._begun > _BEGIN_SECONDS

    def _lost(self) -> list[Ended]:
        """Give up a Ray that is of no use any more, with all that ran on it; the next task starts another.

        Ray itself would let us wait for ever: its processes end together, and nobody is left to say so.

        Raises:
            ResourceError: it fails again and again.
        """
        lost = [Ended(task, lost=True) for task in self._running.values()]
        self._end()
        self._starts += 1
        if self._starts >= _MAX_STARTS:
            raise ResourceError(
                f"Ray died or began nothing {self._starts} times before a task was done",
                hint="perhaps the machine has no memory left; fewer workers, or `--workers 0`, need less",
            )
        logger.warning("Ray died, or began no task for %g seconds; starting another", _BEGIN_SECONDS)
        return lost

    def _collect(self, reference: Any) -> Ended:
        import ray

        task = self._running.pop(reference)
        try:
            done, error = ray.get(reference)
        except (
            ray.exceptions.NodeDiedError,
            ray.exceptions.ObjectLostError,
            ray.exceptions.LocalRayletDiedError,
        ):
            return Ended(task, lost=True)
        except ray.exceptions.RayTaskError as problem:
            return Ended(task, error=problem)
        except ray.exceptions.RayError as problem:
            logger.debug("a worker died in %s: %s", task.label, problem)
            return Ended(task)
        self._starts = 0
        return Ended(task, done=done, error=error)

    def kill(self, task: Task) -> None:
        """Kill the worker of a task, even one that is stopped and cannot end when Ray asks it to."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        for reference, running in self._running.items():
            if running is task:
                ray.cancel(reference, force=True)
                _kill_worker(_name(task))
                for node in _other_nodes():
                    there = NodeAffinitySchedulingStrategy(node, soft=True)
                    killer = ray.remote(num_cpus=0, max_retries=0)(_kill_worker)
                    killer.options(scheduling_strategy=there).remote(_name(task))


def executor_for(workers: int | None, *, address: str | None = None) -> AbstractContextManager[Executor]:
    """Return where tasks run: with 0 workers in this process, otherwise on Ray (see `RayExecutor`)."""
    return nullcontext(Inline()) if workers == 0 else RayExecutor(workers, address=address)


def _other_nodes() -> list[str]:
    """Return the nodes of the cluster besides the one this process is on."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]


def _name(task: Task) -> str:
    """Return what Ray calls one try of a task, also in the title of its worker."""
    return f"{_perform_guarded.__name__}:{task.folder.name}"


def _kill_worker(name: str) -> None:
    """Kill the process of this machine that works on what Ray calls `name`."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(f"ray::{name}".encode()):
                os.kill(int(process.name), signal.SIGKILL)


def _perform_guarded(task: Task) -> tuple[dict[str, Any] | None, Exception | None]:
    """Run a task in a worker; an exception comes back as a value, so that a death is always a death."""
    try:
        return perform(task, guard=guard), None
    except Exception as problem:
        # Where it was raised stays behind, with the frames and all they hold.
        return None, problem.with_traceback(None)


@contextmanager
def _session(workers: int | None, address: str | None) -> Iterator[None]:
    """Connect to Ray and leave signals, logging and files as they were."""
    import ray

    log = logging.getLogger(ray.__name__)
    level, handlers = log.level, list(log.handlers)
    log.setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(_quiet())
        stack.enter_context(_our_signals())
        try:
            if address is None:
                _start_local(stack, workers)
            else:
                _connect(stack, address)
            yield
        finally:
            log.setLevel(level)
            log.handlers = handlers


@contextmanager
def _our_signals() -> Iterator[None]:
    """Keep SIGTERM ours; Ray takes it as soon as it starts, and would end the process with code 15."""
    from ray._private import utils

    take = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda _handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = take


def _connect(stack: ExitStack, address: str) -> None:
    """Connect to a running cluster.

    Raises:
        ResourceError: there is none, or it does not take us.
    """
    import ray

    hint = "is the cluster running? Unset RAY_ADDRESS to work on this machine alone"
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        # Ray would try for minutes.
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError) as problem:
            raise ResourceError(f"no Ray cluster answers at {address}: {problem}", hint=hint) from problem
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            job_config=_job_config(),
        )
    except Exception as problem:  # Ray raises what it likes
        raise ResourceError(f"the Ray cluster at {address} cannot be used: {problem}", hint=hint) from problem
    stack.callback(ray.shutdown)


def _start_local(stack: ExitStack, workers: int | None) -> None:
    """Start a Ray that only this machine can reach.

    Raises:
        ResourceError: it does not start, or it would listen on other interfaces too.
    """
    import ray
    from ray._private import ray_constants

    _remove_leftovers()
    # Paths of Unix sockets are short, and Ray's are long already.
    folder = tempfile.mkdtemp(prefix=f"criadero-{os.getpid()}-", dir="/tmp")
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    # Says that its driver lives, also to one in another container with numbers of its own for processes.
    lock = os.open(Path(folder, _LOCK), os.O_CREAT | os.O_RDWR, 0o600)
    stack.callback(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX)
    clusters = ray_constants.ENABLE_RAY_CLUSTER
    # Makes Ray bind to loopback instead of all interfaces, as on macOS; there is no public name for it.
    ray_constants.ENABLE_RAY_CLUSTER = False
    stack.callback(setattr, ray_constants, "ENABLE_RAY_CLUSTER", clusters)
    stack.callback(ray.shutdown)
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            job_config=_job_config(),
            _temp_dir=folder,
            # Ray would wait for ever for a worker that it started early and that died meanwhile.
            _system_config={"prestart_worker_first_driver": False},
        )
    except Exception as problem:  # Ray raises what it likes
        raise ResourceError(
            f"Ray could not be started: {problem}",
            hint="is there memory and disk left? `--workers 0` works without Ray",
        ) from problem
    listens = ray.util.get_node_ip_address()
    if listens != "127.0.0.1":
        raise ResourceError(
            f"this version of Ray listens on {listens}, where others could reach it",
            hint="install a version of Ray that criadero was tested with",
        )


def _remove_leftovers() -> None:
    """Remove the folders of Ray that drivers of this user left when they were killed."""
    for lock in Path("/tmp").glob(f"criadero-*/{_LOCK}"):
        with suppress(OSError), lock.open("r+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)


def _has_died() -> bool:
    """Whether the processes of a Ray of our own that all others need have ended."""
    from ray._private import ray_constants, worker

    node = worker._global_node
    vital = (ray_constants.PROCESS_TYPE_RAYLET, ray_constants.PROCESS_TYPE_GCS_SERVER)
    return node is None or any(kind in vital for kind, _ in node.dead_processes())


def _job_config() -> Any:
    """Let workers import what this process does, from the same places in the same order."""
    import ray

    # A worker puts one after the other in front.
    return ray.job_config.JobConfig(_py_driver_sys_path=sys.path[::-1])


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray prints deaths of workers on stdout, where only results belong; the engine reports them itself."""
    from ray._private import worker

    shown = worker.print_to_stdstream
    worker.print_to_stdstream = lambda data, **_: logger.debug("ray: %s", data.get("lines"))
    try:
        yield
    finally:
        worker.print_to_stdstream = shown
