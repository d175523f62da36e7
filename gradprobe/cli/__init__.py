"""Words on a command line come in; a task is done and rendered; an exit code goes out."""
