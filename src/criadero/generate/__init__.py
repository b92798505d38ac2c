"""Text from a model: cached decoding, sampling, stop strings, conversations.

`engine.Generator` streams the continuation of a prompt, `sampling.SamplingConfig` says how tokens are chosen,
`chat.Conversation` keeps the turns of a chat.
"""
