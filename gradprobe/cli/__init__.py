"""Words on a command line come in; a task is called, its result is rendered, an exit code goes out."""
