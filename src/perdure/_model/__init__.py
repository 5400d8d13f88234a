"""What is remembered of an execution, and the port that remembers it."""
