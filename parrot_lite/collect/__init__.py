"""Conversations in: what people logged, what asker and answerer write, and the negatives hung on it. Torch-free."""
