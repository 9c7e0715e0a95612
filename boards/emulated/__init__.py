"""Boards without hardware: a root, a network, an sshd and limits of their own, on this machine."""
