"""Sources: where model files come from. One file each, independent of one another."""
