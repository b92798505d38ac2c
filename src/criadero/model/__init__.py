"""The decoder of the paper (LLaMA 2.2): config, presets, layers, initialisation, operation counts.

Entry points: `config.ModelConfig` says what a model is, `presets.preset` names the paper's four sizes and
small ones, `transformer.Transformer` builds it, `init.initialize` fills it, `flops.flops_per_token` counts
its work. In the walk: token shards go in, logits come out; training and generation both use this one model.
"""
