"""Workers whose every step is written to a store before what follows from it is visible.

The kernel is the same as in memory. What differs is when effects are released: an activation gathers what it
changes (:mod:`.draft`) and hands it over as one record (:mod:`.record`); one committer per runtime writes records
in their order, many to a transaction, and then releases what they cause (:mod:`.log`). A worker hands over and
releases (:mod:`.worker`), and is opened again from its rows (:mod:`.reopening`).
"""
