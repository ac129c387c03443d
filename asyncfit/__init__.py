"""asyncfit: neural networks trained inside async programs."""
