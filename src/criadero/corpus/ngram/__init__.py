"""The n-gram language model: interpolated modified Kneser-Ney, trained out of core, equal to lmplz.

`train` makes a model from sentences, `arpa` reads and writes the format other programs know, `model` opens
and asks it, `score` turns its answers into perplexity and bits per byte. In the walk of the data it stands
in the CommonCrawl recipe, where perplexity sorts pages, and beside the transformer as the baseline.
"""
