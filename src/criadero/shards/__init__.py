"""Token shards and the order they are trained in.

The walk: `write.build` turns documents into shard files, `read.ShardSet` maps them, `order.SampleOrder` says
which sequence each global sample is, `batches.Batches` gathers them into tensors with one integer of state,
`held_out.HeldOut` serves what training never sees, `describe` shows the exact text of any of it.
"""
