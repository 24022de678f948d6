"""What is done with a trained model: test scores, probes, attention maps, translation, serving."""
