"""The read-only side: what can be known of flows and their runs."""
