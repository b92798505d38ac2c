"""C4: the released files, or the same steps from WET archives."""
