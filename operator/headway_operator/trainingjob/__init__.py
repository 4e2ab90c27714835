"""What a TrainingJob needs next: pure functions from what exists to a plan."""
