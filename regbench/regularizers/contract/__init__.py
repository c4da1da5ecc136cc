"""What a regularizer promises, as checks."""
