"""TorchServe's answers, and those of the handler that Pilothouse runs in it."""
