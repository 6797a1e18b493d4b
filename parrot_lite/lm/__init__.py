"""The language model below every stage: its template, its tokens, its weights."""
