"""GitHub: files of source code under free licences, from archives, folders and exports of BigQuery."""
