"""One code path for 1..N ranks: launch a process group, lay a mesh over it, shard a model, agree on values.

In the order of a run: `launch` (process group, teardown), `mesh`, `parallelize` (FSDP2), `collectives`.
"""
