"""What a run will need, computed from its config alone: nothing here touches data, weights or ranks."""
