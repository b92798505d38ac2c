"""Text to token ids and back: training, exact fast encoding, streaming decoding, chat templates.

Walk: `train.py` learns a vocabulary from text; `tokenizer.py` holds the interface and `load`;
`sentencepiece_tokenizer.py` and `byte_bpe.py` are its two implementations; `chat.py` is the only place
that inserts control tokens between pieces of user text.
"""
