"""Books: Project Gutenberg texts, EPUB and JSON lines, each book once."""
