"""Runs recipes: stages over splits of documents, on Ray or inline, resumable and with a ledger."""
