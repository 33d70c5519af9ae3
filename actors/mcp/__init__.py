"""Tools that speak the Model Context Protocol: servers adopted as actors, and actors offered to clients.

What needs the ``mcp`` package (extra ``mcp`` of Callboard) imports it when it is used.
"""
