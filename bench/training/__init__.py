"""The training of one model: Lightning trainer, budget, validation, checkpoints, reward phase, distributed runs."""
