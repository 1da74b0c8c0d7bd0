"""One process each, never importing each other; all of them have the same doors (see ARCHITECTURE.md)."""
