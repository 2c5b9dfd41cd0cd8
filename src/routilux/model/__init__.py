"""The nouns: declarations and values, without threads, clocks or I/O."""
