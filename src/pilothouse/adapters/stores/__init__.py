"""Stores: the control plane's database. One file each, independent of one another."""
