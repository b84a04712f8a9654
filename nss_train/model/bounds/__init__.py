"""How large the documents of a base model may be."""
