"""From rows to examples: order, groups, holdout, windows, packing."""
