"""Where leases come from. One file each: `local` is the controller of this machine."""
