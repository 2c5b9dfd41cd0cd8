"""Where snapshots are kept: the codec that writes values as JSON, and the stores behind ``ports.Store``."""
