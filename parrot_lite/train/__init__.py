"""Parrot-Ask and Parrot-Chat: SFT for either speaker, then CaPO."""
