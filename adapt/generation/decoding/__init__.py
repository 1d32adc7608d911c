"""One batch decoded: its answers, what is read of them on the way, and steering."""
