"""Decisions: what happens next in one worker.

Nothing here starts a thread, reads a clock or calls user code. A worker's kernel is its mailboxes
(:mod:`.mailbox`), what they gather (:mod:`.gathering`), and its job accounts (:mod:`.account`).
"""
