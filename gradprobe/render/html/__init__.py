"""A value → one page that needs nothing else: its JSON, its tables and its pictures."""
