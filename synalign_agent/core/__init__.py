"""Pure numerics: arrays in, numbers or row indices out; no I/O, clock or globals."""
