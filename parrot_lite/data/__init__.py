"""Prompts, templates, benchmark, seed queries and sessions: all in our own words."""
