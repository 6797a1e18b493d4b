"""An n-turn benchmark played, judged turn by turn, and probed without a judge; then the table."""
