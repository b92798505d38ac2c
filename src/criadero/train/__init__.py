"""Pretraining: config, loss, optimizer, schedule, the state that survives a restart, and the loop."""
