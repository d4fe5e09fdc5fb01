"""Targets: where replicas run. One file each, independent of one another."""
