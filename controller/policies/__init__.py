"""Policies to choose from, one in each file; the file's name is the policy's."""
