"""Name maps: how other programs call, order and shape the same weights."""
