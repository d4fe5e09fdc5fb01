"""Where leases come from: `local` (the controller) and `redis`."""
