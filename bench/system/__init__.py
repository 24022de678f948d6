"""Machine settings, terminal output, progress messages, number formats, atomic file writes."""
