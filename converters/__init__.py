"""The workstation side: load a trained model, export it, quantize it, prove it."""
