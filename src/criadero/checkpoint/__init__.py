"""Checkpoints that are whole or absent: tensors in safetensors, the rest in JSON, all of it hashed.

`save` writes (in the background), `manifest` says what a whole checkpoint is, `load` verifies and reads,
`retain` keeps the newest good ones.
"""
