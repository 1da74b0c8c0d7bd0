"""Life of a process: settings, clock, signals, health, one composition frame for every service."""
