"""Where several houses' limits are shared. One file each: `redis` is Redis or Valkey."""
