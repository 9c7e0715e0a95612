"""Boards and bundles side by side, from station records: one page that needs nothing else, and the same as data."""
