"""What an attacker or a bad disk would do to a bundle, done to it on purpose: mutations, hostile files, kills.

It ships with edgeseg, so that any bundle can be held to it: `edgeseg fuzz BUNDLE`, told in docs/fuzzing.md.
"""
