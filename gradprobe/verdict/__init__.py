"""A profile comes in; a report goes out: findings, verdict, chance of training. No torch."""
