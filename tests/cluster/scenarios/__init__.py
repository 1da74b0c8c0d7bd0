"""The eight scenarios, a module each."""
