"""The servers that `local` starts, as real processes."""
