"""English CommonCrawl through CCNet: WET and WARC archives, line dedup, language, perplexity, references."""
