"""What people declared elsewhere, read as a spec of ours, with a word on all that has no place in it."""
