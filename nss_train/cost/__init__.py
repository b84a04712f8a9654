"""The estimated cost of a training before it begins: how much work it is, and how fast this machine is."""
