"""The reading of a table under privacy: each record from its own cells and public declarations."""
