"""What a suite or sweep will cost, before it is started: hours, FLOPs, memory, disk, joules."""
