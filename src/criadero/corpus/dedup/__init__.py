"""Duplicates inside a source: lines shared by many pages, and documents that are almost the same."""
