"""Keys: who wraps and unwraps sealing keys. One file each, independent of one another."""
