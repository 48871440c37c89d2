"""One file a task; each has ``rows(context)``, a generator of the rows that it measures."""
