"""Wikipedia: articles of pages-articles dumps in 20 languages, from wikitext to plain text."""
