"""Judges: rules that score an answer. Knows answers, not where they come from. Imported by `app` alone."""
