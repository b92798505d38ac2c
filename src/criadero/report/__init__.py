"""Pictures and tables of runs, drawn from what their folders hold."""
