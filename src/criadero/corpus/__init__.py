"""Documents and where they come from: `document`, then one reader per kind of source in `sources`."""
