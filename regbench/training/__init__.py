"""What one training step does, and what a training needs around its steps."""
