"""The engine on a cluster of Ray: two nodes on one machine, of which one is lost."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

import engine_recipes
from criadero.corpus.engine.executor import Inline
from criadero.corpus.engine.ray_executor import RayExecutor
from criadero.corpus.engine.run import run_source
from criadero.corpus.engine.stage import Each, Exchange, Read

from .test_resume import result_of

pytestmark = pytest.mark.xdist_group("ray")


def test_a_node_lost_in_the_middle_changes_nothing(tmp_path: Path):
    recipe = (
        Read(engine_recipes.splits(6), engine_recipes.make_reader, {"documents": 25}),
        Each("slow", engine_recipes.make_harmful, {"harm": {}, "seconds": 0.03}),
        Exchange("lines", engine_recipes.LineDedup),
    )
    run_source("made", recipe, tmp_path / "inline", executor=Inline())
    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        with RayExecutor(address=cluster.address) as executor:
            assert executor.workers == 2
            killer = threading.Timer(1.0, cluster.remove_node, (second,), {"allow_graceful": False})
            killer.start()
            result = run_source("made", recipe, tmp_path / "ray", executor=executor)
            killer.join()
    finally:
        cluster.shutdown()
    assert result.set_aside == []
    assert result_of(tmp_path / "ray") == result_of(tmp_path / "inline")
