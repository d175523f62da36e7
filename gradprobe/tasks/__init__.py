"""What each command does: targets and options come in, reports or tables of them go out."""
