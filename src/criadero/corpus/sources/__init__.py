"""Readers, one module per kind of raw input; each yields `Document`s."""
