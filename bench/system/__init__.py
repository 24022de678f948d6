"""The machine and the person in front of it: device and thread settings, terminal output, progress, file writes."""
