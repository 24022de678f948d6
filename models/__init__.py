"""The architectures, one file each, found by the name of the file; what they share is in models/parts/."""
