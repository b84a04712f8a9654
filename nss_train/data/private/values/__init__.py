"""Private cells, each typed by itself."""
