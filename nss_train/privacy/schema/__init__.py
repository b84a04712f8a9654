"""What is published of a private table's columns and units, with noise."""
