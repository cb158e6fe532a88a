"""What the course's notebooks use: exercises that check themselves, examples to play with."""
