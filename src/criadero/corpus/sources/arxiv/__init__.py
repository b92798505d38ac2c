"""arXiv: LaTeX sources, from tar files as arXiv publishes them to text with its macros expanded."""
