"""Blob stores: model files by digest. One file each, independent of one another."""
