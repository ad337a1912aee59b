"""What one engine is and what its steps cost: figures of models and GPUs, vLLM's limits, the law, the roofline."""
