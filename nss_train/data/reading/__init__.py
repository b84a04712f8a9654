"""How a file becomes a table: what it is packed, encoded and separated with, and whether its rows fit."""
