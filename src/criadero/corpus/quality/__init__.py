"""How good a page is: its perplexity under a model of good text, its likeness to what Wikipedia cites."""
