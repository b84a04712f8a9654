"""The check, before the first private step, that no unit changes another's gradient."""
