"""Weights made by others, in and out: Hugging Face folders, Meta folders and GGUF files.

Entry points: `load.load_model` (any MODEL to a model that runs), `load.load_tokenizer`,
`importing.import_model` (any MODEL to a Hugging Face folder), `huggingface.save_model` (what training
writes). Each reader gives a `stored.StoredModel`: the config and the tensors under the names and in
the rotary layout of `criadero.model`, each read only when asked for. Nothing here unpickles anything
without `weights_only=True`, runs code or templates from a model, or writes into a source.
"""
