"""Engine drivers and engines. One file each, independent of one another."""
