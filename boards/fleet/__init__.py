"""Boards of a fleet: labgrid says where they are and lends each to one runner at a time.

labgrid (LGPL-2.1) is a package of its own, of the extra `fleet`, which the process that runs a suite never imports.
"""
