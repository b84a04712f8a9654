"""Neighbouring tables, as files, which must leave the same traces except for what the guarantee allows."""
